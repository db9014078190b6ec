resource "aws_s3_bucket" "releases" {
  count  = local.makes_bucket ? 1 : 0
  bucket = local.bucket
  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_s3_bucket_versioning" "releases" {
  count  = local.makes_bucket ? 1 : 0
  bucket = aws_s3_bucket.releases[0].id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_ownership_controls" "releases" {
  count  = local.makes_bucket ? 1 : 0
  bucket = aws_s3_bucket.releases[0].id
  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_public_access_block" "releases" {
  count                   = local.makes_bucket ? 1 : 0
  bucket                  = aws_s3_bucket.releases[0].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_server_side_encryption_configuration" "releases" {
  count  = local.makes_bucket && var.bucket_key_arn != null ? 1 : 0
  bucket = aws_s3_bucket.releases[0].id
  rule {
    bucket_key_enabled = true
    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = var.bucket_key_arn
    }
  }
}

resource "aws_s3_bucket_policy" "releases" {
  count  = local.makes_bucket ? 1 : 0
  bucket = aws_s3_bucket.releases[0].id
  policy = module.policies.bucket
  # it forbids to change versioning, which therefore has to be on before
  depends_on = [aws_s3_bucket_versioning.releases, aws_s3_bucket_public_access_block.releases]
}

# All of a bucket's notifications are one document: another aws_s3_bucket_notification of this bucket would undo this one.
resource "aws_s3_bucket_notification" "releases" {
  count       = local.makes_bucket ? 1 : 0
  bucket      = aws_s3_bucket.releases[0].id
  eventbridge = local.by_eventbridge

  dynamic "queue" {
    for_each = local.by_eventbridge ? [] : [true]
    content {
      queue_arn = aws_sqs_queue.releases.arn
      events    = ["s3:ObjectCreated:*"]
      # what is written last with every release: one message a release, whichever stream
      filter_suffix = "head.json"
    }
  }

  depends_on = [aws_sqs_queue_policy.releases]
}

resource "aws_sqs_queue" "releases" {
  name                    = "${var.name}-releases"
  sqs_managed_sse_enabled = true
  # six times the front's time: Lambda may hold messages back for as long while it is throttled
  visibility_timeout_seconds = 360
  message_retention_seconds  = 345600
  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead_letters.arn
    maxReceiveCount     = 5
  })
}

resource "aws_sqs_queue" "dead_letters" {
  name                      = "${var.name}-dead-letters"
  sqs_managed_sse_enabled   = true
  message_retention_seconds = 1209600
}

# What Lambda says of an execution that it gave up, which is no message of the queue's: redriving must not mix them.
resource "aws_sqs_queue" "lost_executions" {
  name                      = "${var.name}-lost-executions"
  sqs_managed_sse_enabled   = true
  message_retention_seconds = 1209600
}

resource "aws_sqs_queue_policy" "releases" {
  queue_url = aws_sqs_queue.releases.id
  policy    = module.policies.queue
}

resource "aws_cloudwatch_event_rule" "new_head" {
  count       = local.by_eventbridge ? 1 : 0
  name        = "${var.name}-new-head"
  description = "A release was published"
  event_pattern = jsonencode({
    source      = ["aws.s3"]
    detail-type = ["Object Created"]
    detail = {
      bucket = { name = [local.bucket] }
      object = { key = [{ suffix = "head.json" }] }
    }
  })
}

resource "aws_cloudwatch_event_target" "queue" {
  count = local.by_eventbridge ? 1 : 0
  rule  = aws_cloudwatch_event_rule.new_head[0].name
  arn   = aws_sqs_queue.releases.arn
}

resource "aws_lambda_event_source_mapping" "queue" {
  event_source_arn        = aws_sqs_queue.releases.arn
  function_name           = aws_lambda_function.this["front"].arn
  batch_size              = 10
  function_response_types = ["ReportBatchItemFailures"]
  # a look at bucket and database is enough for any number of messages: two at once are plenty
  scaling_config {
    maximum_concurrency = 2
  }
  depends_on = [aws_iam_role_policy.front]
}
