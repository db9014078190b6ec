resource "aws_cloudwatch_log_group" "this" {
  name              = "/lockkeeper/${var.name}"
  retention_in_days = var.log_retention_days
  skip_destroy      = true
}

locals {
  filters = {
    runs-failed = {
      pattern     = "{ $.event = \"run.failed\" }"
      description = "A run failed. It is not tried again by itself; the log and GET /v1/runs say why."
    }
    needs-attention = {
      pattern     = "{ $.code = \"NEEDS_ATTENTION\" }"
      description = "Nobody can tell whether one statement took effect. A person has to look and say so."
    }
  }

  alarms = merge(
    { for name, filter in local.filters : name => {
      description = filter.description
      namespace   = "lockkeeper"
      metric      = "${var.name}-${name}"
      dimensions  = {}
      statistic   = "Sum"
      threshold   = 1
    } },
    {
      dead-letters = {
        description = "A notification was given up, because bucket or database could not be reached for half an hour."
        namespace   = "AWS/SQS"
        metric      = "ApproximateNumberOfMessagesVisible"
        dimensions  = { QueueName = aws_sqs_queue.dead_letters.name }
        statistic   = "Maximum"
        threshold   = 1
      }
      lost-executions = {
        description = "Lambda gave up an execution. The run is in the database, and the next sweep goes on with it."
        namespace   = "AWS/SQS"
        metric      = "ApproximateNumberOfMessagesVisible"
        dimensions  = { QueueName = aws_sqs_queue.lost_executions.name }
        statistic   = "Maximum"
        threshold   = 1
      }
      oldest-message = {
        description = "A notification waits for more than a quarter of an hour."
        namespace   = "AWS/SQS"
        metric      = "ApproximateAgeOfOldestMessage"
        dimensions  = { QueueName = aws_sqs_queue.releases.name }
        statistic   = "Maximum"
        threshold   = 900
      }
      front-errors = {
        description = "The front ended without an answer."
        namespace   = "AWS/Lambda"
        metric      = "Errors"
        dimensions  = { FunctionName = aws_lambda_function.this["front"].function_name }
        statistic   = "Sum"
        threshold   = 1
      }
      worker-errors = {
        description = "The worker died, or ran out of time in the middle of a statement."
        namespace   = "AWS/Lambda"
        metric      = "Errors"
        dimensions  = { FunctionName = aws_lambda_function.this["worker"].function_name }
        statistic   = "Sum"
        threshold   = 1
      }
      front-throttles = {
        description = "The account has no concurrency left for the front."
        namespace   = "AWS/Lambda"
        metric      = "Throttles"
        dimensions  = { FunctionName = aws_lambda_function.this["front"].function_name }
        statistic   = "Sum"
        threshold   = 1
      }
    },
  )
}

resource "aws_cloudwatch_log_metric_filter" "this" {
  for_each       = local.filters
  name           = each.key
  log_group_name = aws_cloudwatch_log_group.this.name
  pattern        = each.value.pattern
  metric_transformation {
    name          = "${var.name}-${each.key}"
    namespace     = "lockkeeper"
    value         = "1"
    default_value = "0"
  }
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each            = local.alarms
  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.description
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = each.value.statistic
  period              = 60
  evaluation_periods  = 1
  threshold           = each.value.threshold
  comparison_operator = "GreaterThanOrEqualToThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_topic_arn == null ? [] : [var.alarm_topic_arn]
}
