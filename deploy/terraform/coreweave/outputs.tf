output "bucket" {
  description = "Bucket of shards and checkpoints."
  value       = coreweave_object_storage_bucket.artifacts.name
}

output "s3_endpoint" {
  description = "Value of AWS_ENDPOINT_URL."
  value       = local.s3_endpoint
}

output "s3_addressing" {
  description = "Value of AWS_S3_ADDRESSING_STYLE."
  value       = "virtual"
}

output "storage_class" {
  description = "Storage class of volumes that many nodes mount."
  value       = "shared-vast"
}

output "api_server" {
  description = "Address of the cluster."
  value       = coreweave_cks_cluster.this.api_server_endpoint
}

output "node_pools" {
  description = "Manifests of the node pools, for kubectl."
  value = join("---\n", [
    yamlencode({
      apiVersion = "compute.coreweave.com/v1alpha1"
      kind       = "NodePool"
      metadata   = { name = "${var.name}-h100" }
      spec = {
        instanceType = var.gpu_instance_type
        computeClass = var.spot ? "spot" : "default"
        autoscaling  = true
        targetNodes  = 0
        minNodes     = 0
        maxNodes     = var.gpu_nodes
        nodeLabels   = { "neurofm/pool" = "h100" }
        nodeTaints   = [{ key = "nvidia.com/gpu", value = "true", effect = "NoSchedule" }]
      }
    }),
    yamlencode({
      apiVersion = "compute.coreweave.com/v1alpha1"
      kind       = "NodePool"
      metadata   = { name = "${var.name}-cpu" }
      spec = {
        instanceType = var.cpu_instance_type
        computeClass = "default"
        autoscaling  = false
        targetNodes  = 1
        nodeLabels   = { "neurofm/pool" = "cpu" }
      }
    }),
  ])
}
