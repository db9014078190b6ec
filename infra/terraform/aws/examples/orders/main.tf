# A database in private subnets that the functions log in to by an IAM token, releases published by a workflow of GitHub, and
# callers with AWS credentials. `code` is made by `node infra/aws/bundle.ts code`, and `config/lockkeeper` is yours.

terraform {
  required_version = ">= 1.9"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.22"
    }
  }
}

provider "aws" {
  region = "us-east-1"
}

module "lockkeeper" {
  source = "../.."

  name       = "orders-db"
  code_dir   = "${path.module}/code"
  config_dir = "${path.module}/config"

  subnet_ids         = ["subnet-0a1b2c3d4e5f60001", "subnet-0a1b2c3d4e5f60002"]
  security_group_ids = ["sg-0a1b2c3d4e5f60003"]
  database_user_arns = ["arn:aws:rds-db:us-east-1:111122223333:dbuser:db-ABCDEFGHIJKL01234/lockkeeper_runner"]

  github_provider_arn = "arn:aws:iam::111122223333:oidc-provider/token.actions.githubusercontent.com"
  publisher_subject   = "repo:acme/orders:ref:refs/heads/main"
  caller_subject      = "repo:acme/orders:environment:production"

  alarm_topic_arn = "arn:aws:sns:us-east-1:111122223333:on-call"
}

output "bucket_name" {
  value = module.lockkeeper.bucket_name
}

output "url" {
  value = module.lockkeeper.url
}
