# Cluster, node pools and bucket.
locals {
  s3_endpoint = "https://object.${var.location}.crusoecloudcompute.com"
}

resource "crusoe_kubernetes_cluster" "this" {
  name          = var.name
  project_id    = var.project_id
  location      = var.location
  version       = var.kubernetes_version
  configuration = "ha"
  add_ons       = ["nvidia_gpu_operator", "nvidia_network_operator", "crusoe_csi"]
}

resource "crusoe_ib_partition" "this" {
  name          = var.name
  project_id    = var.project_id
  ib_network_id = var.ib_network_id
}

resource "crusoe_kubernetes_node_pool" "h100" {
  name                  = "${var.name}-h100"
  project_id            = var.project_id
  cluster_id            = crusoe_kubernetes_cluster.this.id
  version               = var.kubernetes_version
  type                  = var.gpu_instance_type
  instance_count        = var.gpu_nodes
  ib_partition_id       = crusoe_ib_partition.this.id
  ssh_key               = var.ssh_key
  requested_node_labels = { "neurofm/pool" = "h100" }
}

resource "crusoe_kubernetes_node_pool" "cpu" {
  name                  = "${var.name}-cpu"
  project_id            = var.project_id
  cluster_id            = crusoe_kubernetes_cluster.this.id
  version               = var.kubernetes_version
  type                  = var.cpu_instance_type
  instance_count        = 1
  ssh_key               = var.ssh_key
  requested_node_labels = { "neurofm/pool" = "cpu" }
}

resource "crusoe_storage_s3_bucket" "artifacts" {
  name               = "${var.name}-artifacts"
  project_id         = var.project_id
  location           = var.location
  versioning_enabled = true
  tags               = { project = var.name }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "artifacts" {
  count  = var.bucket_encryption ? 1 : 0
  bucket = crusoe_storage_s3_bucket.artifacts.name
  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "artifacts" {
  bucket = crusoe_storage_s3_bucket.artifacts.name
  rule {
    id     = "replaced-versions"
    status = "Enabled"
    filter {}
    noncurrent_version_expiration {
      noncurrent_days = var.checkpoint_days
    }
  }
  rule {
    id     = "abandoned-uploads"
    status = "Enabled"
    filter {}
    abort_incomplete_multipart_upload {
      days_after_initiation = 3
    }
  }
}
