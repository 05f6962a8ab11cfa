variable "name" {
  description = "Name of the cluster and beginning of the bucket's name: lowercase letters, digits and hyphens."
  type        = string
  default     = "neurofm"
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{2,20}$", var.name))
    error_message = "Use 3 to 21 lowercase letters, digits and hyphens, a letter first."
  }
}

variable "project_id" {
  description = "Project that everything belongs to and that is billed."
  type        = string
}

variable "location" {
  description = "Location of cluster and bucket; it must offer the GPU instance type and InfiniBand."
  type        = string
  default     = "us-east1-a"
  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]-[a-z]$", var.location))
    error_message = "A location looks like us-east1-a."
  }
}

variable "kubernetes_version" {
  description = "Version of control plane and nodes, as `crusoe kubernetes versions list` prints it."
  type        = string
  default     = "1.32.7-cmk.3"
  validation {
    condition     = can(regex("^1\\.[0-9]{2}\\.[0-9]+-cmk\\.[0-9]+$", var.kubernetes_version))
    error_message = "A version looks like 1.32.7-cmk.3."
  }
}

variable "ib_network_id" {
  description = "InfiniBand network of the GPU nodes, as `crusoe networking ib-networks list` prints it."
  type        = string
}

variable "ssh_key" {
  description = "Public key that may log in to the nodes."
  type        = string
  validation {
    condition     = can(regex("^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp256) ", var.ssh_key))
    error_message = "Give the public key itself: it begins with ssh-ed25519, ssh-rsa or ecdsa-sha2-nistp256."
  }
}

variable "gpu_instance_type" {
  description = "Instance type of the GPU nodes: eight H100 with InfiniBand."
  type        = string
  default     = "h100-80gb-sxm-ib.8x"
  validation {
    condition     = strcontains(var.gpu_instance_type, "h100")
    error_message = "The requests of the sizes are made for H100 nodes; choose an instance type with h100 in its name."
  }
}

variable "gpu_nodes" {
  description = "GPU nodes: 1 for sizes small and medium, 2 for large. Every one is billed while it is up; 0 pauses."
  type        = number
  default     = 1
  validation {
    condition     = var.gpu_nodes >= 0 && var.gpu_nodes <= 8 && floor(var.gpu_nodes) == var.gpu_nodes
    error_message = "Between 0 and 8 whole nodes."
  }
}

variable "cpu_instance_type" {
  description = "Instance type of the node for the control plane, the database and work over whole datasets, which takes 8 CPUs and 64 GiB beside them."
  type        = string
  default     = "c1a.64x"
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
