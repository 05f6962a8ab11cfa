# Network, cluster and bucket. Node pools are objects inside the cluster, so they are an output for kubectl.
locals {
  s3_endpoint = "https://cwobject.com"
}

resource "coreweave_networking_vpc" "this" {
  name = var.name
  zone = var.zone
  vpc_prefixes = [
    { name = "pods", value = "10.0.0.0/13" },
    { name = "services", value = "10.16.0.0/22" },
    { name = "load-balancers", value = "10.32.4.0/22" },
  ]
}

resource "coreweave_cks_cluster" "this" {
  name                   = var.name
  zone                   = var.zone
  version                = var.kubernetes_version
  vpc_id                 = coreweave_networking_vpc.this.id
  public                 = true
  pod_cidr_name          = "pods"
  service_cidr_name      = "services"
  internal_lb_cidr_names = ["load-balancers"]
}

resource "coreweave_object_storage_bucket" "artifacts" {
  name = "${var.name}-artifacts"
  zone = var.zone
  tags = { project = var.name }
}

resource "coreweave_object_storage_bucket_versioning" "artifacts" {
  bucket = coreweave_object_storage_bucket.artifacts.name
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "artifacts" {
  count  = var.bucket_encryption ? 1 : 0
  bucket = coreweave_object_storage_bucket.artifacts.name
  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "coreweave_object_storage_bucket_lifecycle_configuration" "artifacts" {
  bucket     = coreweave_object_storage_bucket.artifacts.name
  depends_on = [coreweave_object_storage_bucket_versioning.artifacts]
  rule {
    id     = "replaced-versions"
    status = "Enabled"
    filter {
      prefix = ""
    }
    noncurrent_version_expiration {
      noncurrent_days = var.checkpoint_days
    }
  }
  rule {
    id     = "abandoned-uploads"
    status = "Enabled"
    filter {
      prefix = ""
    }
    abort_incomplete_multipart_upload {
      days_after_initiation = 3
    }
  }
}
