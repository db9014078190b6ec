output "bucket_name" {
  description = "Where releases are published to: s3://NAME/STREAM."
  value       = local.bucket
}

output "url" {
  description = "Where callers reach lockkeeper; null where there is no way but the bucket."
  value = one(concat(
    aws_lambda_function_url.this[*].function_url,
    aws_apigatewayv2_api.this[*].api_endpoint,
  ))
}

output "caller_policy_arn" {
  description = "For the role of whoever calls, where it is not made here; null where callers show tokens."
  value       = one(aws_iam_policy.caller[*].arn)
}

output "caller_role_arn" {
  value = try(aws_iam_role.taken["caller"].arn, null)
}

output "publisher_policy_arn" {
  description = "For the role of whoever publishes, where it is not made here."
  value       = aws_iam_policy.publisher.arn
}

output "publisher_role_arn" {
  value = try(aws_iam_role.taken["publisher"].arn, null)
}

output "front_name" {
  value = aws_lambda_function.this["front"].function_name
}

output "worker_name" {
  value = aws_lambda_function.this["worker"].function_name
}

output "dead_letters_url" {
  description = "Notifications that were given up."
  value       = aws_sqs_queue.dead_letters.id
}

output "log_group_name" {
  value = aws_cloudwatch_log_group.this.name
}
