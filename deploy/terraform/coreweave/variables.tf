variable "name" {
  description = "Name of the cluster and beginning of the bucket's name: lowercase letters, digits and hyphens."
  type        = string
  default     = "neurofm"
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{2,20}$", var.name))
    error_message = "Use 3 to 21 lowercase letters, digits and hyphens, a letter first."
  }
}

variable "zone" {
  description = "Availability zone of cluster and bucket; it must offer the GPU instance type."
  type        = string
  default     = "US-EAST-04A"
  validation {
    condition     = can(regex("^[A-Z]+-[A-Z]+-[0-9]{2}[A-Z]$", var.zone))
    error_message = "A zone looks like US-EAST-04A."
  }
}

variable "kubernetes_version" {
  description = "Minor version of Kubernetes."
  type        = string
  default     = "v1.35"
  validation {
    condition     = can(regex("^v1\\.[0-9]{2}$", var.kubernetes_version))
    error_message = "A version looks like v1.35."
  }
}

variable "gpu_instance_type" {
  description = "Instance type of the GPU nodes: eight H100 with InfiniBand."
  type        = string
  default     = "gd-8xh100ib-i128"
  validation {
    condition     = strcontains(var.gpu_instance_type, "h100")
    error_message = "The requests of the sizes are made for H100 nodes; choose an instance type with h100 in its name."
  }
}

variable "gpu_nodes" {
  description = "GPU nodes at most: 1 for sizes small and medium, 2 for large. Every one is billed while it is up."
  type        = number
  default     = 1
  validation {
    condition     = var.gpu_nodes >= 0 && var.gpu_nodes <= 8 && floor(var.gpu_nodes) == var.gpu_nodes
    error_message = "Between 0 and 8 whole nodes."
  }
}

variable "spot" {
  description = "Whether GPU nodes are preemptible: cheaper, and a run resumes from its checkpoint when one is taken."
  type        = bool
  default     = true
}

variable "cpu_instance_type" {
  description = "Instance type of the node for the control plane, the database and work over whole datasets, which takes 8 CPUs and 64 GiB beside them."
  type        = string
  default     = "cd-gp-a192-genoa"
}

variable "checkpoint_days" {
  description = "Days after which replaced versions of objects, old checkpoints above all, are deleted."
  type        = number
  default     = 30
  validation {
    condition     = var.checkpoint_days >= 1
    error_message = "At least one day."
  }
}

variable "bucket_encryption" {
  description = "Ask the bucket for AES-256 at rest. Set to false only where the provider refuses the request since it always encrypts."
  type        = bool
  default     = true
}
