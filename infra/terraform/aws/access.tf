resource "aws_lambda_function_url" "this" {
  count              = local.has_url ? 1 : 0
  function_name      = aws_lambda_function.this["front"].function_name
  authorization_type = "AWS_IAM"
}

resource "aws_apigatewayv2_api" "this" {
  count         = local.has_api ? 1 : 0
  name          = var.name
  protocol_type = "HTTP"
}

resource "aws_apigatewayv2_integration" "front" {
  count                  = local.has_api ? 1 : 0
  api_id                 = aws_apigatewayv2_api.this[0].id
  integration_type       = "AWS_PROXY"
  integration_uri        = aws_lambda_function.this["front"].arn
  payload_format_version = "2.0"
}

resource "aws_apigatewayv2_route" "all" {
  count              = local.has_api ? 1 : 0
  api_id             = aws_apigatewayv2_api.this[0].id
  route_key          = "$default"
  authorization_type = var.access == "iam" ? "AWS_IAM" : "NONE"
  target             = "integrations/${aws_apigatewayv2_integration.front[0].id}"
}

resource "aws_apigatewayv2_stage" "this" {
  count  = local.has_api ? 1 : 0
  api_id = aws_apigatewayv2_api.this[0].id
  # a stage of another name would stand in front of every path
  name        = "$default"
  auto_deploy = true
  default_route_settings {
    throttling_rate_limit  = 20
    throttling_burst_limit = 40
  }
}

resource "aws_lambda_permission" "api" {
  count         = local.has_api ? 1 : 0
  statement_id  = "api"
  function_name = aws_lambda_function.this["front"].function_name
  action        = "lambda:InvokeFunction"
  principal     = "apigateway.amazonaws.com"
  source_arn    = "${aws_apigatewayv2_api.this[0].execution_arn}/*"
}
