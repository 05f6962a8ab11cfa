# Credentials come from the environment: COREWEAVE_API_TOKEN; AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of an object storage key.
terraform {
  required_version = ">= 1.6"
  required_providers {
    coreweave = {
      source  = "coreweave/coreweave"
      version = "0.15.0"
    }
    aws = {
      source  = "hashicorp/aws"
      version = "6.0.0"
    }
  }
}

provider "coreweave" {}

# CoreWeave's object storage speaks S3; what is particular to Amazon is left out.
provider "aws" {
  region                      = "us-east-1"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_region_validation      = true
  skip_requesting_account_id  = true
  endpoints {
    s3 = local.s3_endpoint
  }
}
