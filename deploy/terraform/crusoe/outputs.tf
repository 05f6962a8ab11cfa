output "bucket" {
  description = "Bucket of shards and checkpoints."
  value       = crusoe_storage_s3_bucket.artifacts.name
}

output "s3_endpoint" {
  description = "Value of AWS_ENDPOINT_URL."
  value       = local.s3_endpoint
}

output "s3_addressing" {
  description = "Value of AWS_S3_ADDRESSING_STYLE."
  value       = "path"
}

output "storage_class" {
  description = "Storage class of volumes that many nodes mount."
  value       = "crusoe-csi-driver-fs-sc"
}

output "cluster_id" {
  description = "Cluster, for `crusoe kubernetes clusters get-credentials`."
  value       = crusoe_kubernetes_cluster.this.id
}
