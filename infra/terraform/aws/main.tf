data "aws_partition" "current" {}
data "aws_region" "current" {}
data "aws_caller_identity" "current" {}

locals {
  partition      = data.aws_partition.current.partition
  region         = data.aws_region.current.region
  account        = data.aws_caller_identity.current.account_id
  makes_bucket   = var.existing_bucket == null
  bucket         = local.makes_bucket ? "${var.name}-releases-${local.account}-${local.region}" : var.existing_bucket
  by_eventbridge = !local.makes_bucket || var.notifications == "eventbridge"
  in_vpc         = length(var.subnet_ids) > 0
  has_url        = var.access == "iam-function-url"
  has_api        = contains(["iam", "oidc"], var.access)
  is_iam         = contains(["iam", "iam-function-url"], var.access)
}

module "policies" {
  source = "./policies"
  name   = var.name
  aws = {
    partition  = local.partition
    region     = local.region
    account    = local.account
    dns_suffix = data.aws_partition.current.dns_suffix
  }
  bucket                     = local.bucket
  by_eventbridge             = local.by_eventbridge
  require_conditional_writes = var.require_conditional_writes
  bucket_key_arn             = var.bucket_key_arn
  publisher_prefix           = var.publisher_prefix
  database_user_arns         = var.database_user_arns
  secret_arns                = var.secret_arns
  secrets_key_arn            = var.secrets_key_arn
  in_vpc                     = local.in_vpc
  http_api_id                = one(aws_apigatewayv2_api.this[*].id)
}

# ---- Code and configuration

data "archive_file" "code" {
  type        = "zip"
  source_dir  = var.code_dir
  output_path = "${path.root}/.terraform/${var.name}-code.zip"
}

data "archive_file" "config" {
  type        = "zip"
  source_dir  = var.config_dir
  output_path = "${path.root}/.terraform/${var.name}-config.zip"
}

resource "aws_lambda_layer_version" "config" {
  layer_name       = "${var.name}-config"
  description      = "lockkeeper.yaml, the policy and the keys it trusts"
  filename         = data.archive_file.config.output_path
  source_code_hash = data.archive_file.config.output_base64sha256
  # a version that a function still uses must not go with the next one
  skip_destroy = true
}

# ---- Two functions from one zip: the front answers within a minute, the worker executes for up to a quarter of an hour

locals {
  functions = {
    front = {
      description = "Answers callers, messages and the sweep; has the worker execute"
      timeout     = 60
      concurrency = -1
      # callers and the schedule ask again by themselves
      max_event_age = 300
    }
    worker = {
      description = "Executes runs, and passes on to itself what it has no time for"
      timeout     = 900
      concurrency = var.workers_at_once == null ? -1 : var.workers_at_once
      # waiting for a free worker, where they are bounded
      max_event_age = 21600
    }
  }
}

resource "aws_lambda_function" "this" {
  for_each = local.functions

  function_name                  = "${var.name}-${each.key}"
  description                    = each.value.description
  role                           = aws_iam_role.function[each.key].arn
  runtime                        = "nodejs24.x"
  handler                        = "index.handler"
  architectures                  = [var.architecture]
  memory_size                    = var.memory_size
  timeout                        = each.value.timeout
  reserved_concurrent_executions = each.value.concurrency
  filename                       = data.archive_file.code.output_path
  source_code_hash               = data.archive_file.code.output_base64sha256
  layers                         = [aws_lambda_layer_version.config.arn]

  environment {
    variables = {
      LOCKKEEPER_CONFIG          = "/opt/lockkeeper/lockkeeper.yaml"
      LOCKKEEPER_WORKER_FUNCTION = "${var.name}-worker"
    }
  }

  logging_config {
    # our lines are JSON already; wrapped once more, the filters would not see into them
    log_format = "Text"
    log_group  = aws_cloudwatch_log_group.this.name
  }

  dynamic "vpc_config" {
    for_each = local.in_vpc ? [true] : []
    content {
      subnet_ids         = var.subnet_ids
      security_group_ids = var.security_group_ids
    }
  }
}

resource "aws_lambda_function_event_invoke_config" "this" {
  for_each = local.functions

  function_name = aws_lambda_function.this[each.key].function_name
  # what was begun is in the database: whoever looks next goes on with it
  maximum_retry_attempts       = 0
  maximum_event_age_in_seconds = each.value.max_event_age
  destination_config {
    on_failure {
      destination = aws_sqs_queue.lost_executions.arn
    }
  }
}

# AWS would end the chain of invocations after sixteen; ours ends when a run makes no progress.
resource "aws_lambda_function_recursion_config" "worker" {
  function_name  = aws_lambda_function.this["worker"].function_name
  recursive_loop = "Allow"
}

# ---- The sweep

resource "aws_scheduler_schedule" "sweep" {
  name                = "${var.name}-sweep"
  description         = "Brings every target to its bucket's head, for what no notification said"
  schedule_expression = var.sweep_schedule
  flexible_time_window {
    mode = "OFF"
  }
  target {
    arn      = aws_lambda_function.this["front"].arn
    role_arn = aws_iam_role.sweep.arn
    input    = jsonencode({ lockkeeper = { sweep = {} } })
    # the next sweep is the next try
    retry_policy {
      maximum_retry_attempts       = 0
      maximum_event_age_in_seconds = 300
    }
  }
}
