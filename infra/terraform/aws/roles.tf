resource "aws_iam_role" "function" {
  for_each = toset(["front", "worker"])
  name     = "${var.name}-${each.key}"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "lambda.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })
}

resource "aws_iam_policy" "runner" {
  name        = "${var.name}-runner"
  description = "lockkeeper's functions"
  policy      = module.policies.runner
}

resource "aws_iam_role_policy_attachment" "runner" {
  for_each   = aws_iam_role.function
  role       = each.value.name
  policy_arn = aws_iam_policy.runner.arn
}

resource "aws_iam_role_policy" "front" {
  name   = "front"
  role   = aws_iam_role.function["front"].name
  policy = module.policies.front
}

resource "aws_iam_role" "sweep" {
  name = "${var.name}-sweep"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "scheduler.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
    }]
  })
}

resource "aws_iam_role_policy" "sweep" {
  name   = "sweep"
  role   = aws_iam_role.sweep.name
  policy = module.policies.sweep
}

resource "aws_iam_policy" "publisher" {
  name        = "${var.name}-publisher"
  description = "Publishes releases with lockkeeper publish"
  policy      = module.policies.publisher
}

resource "aws_iam_policy" "caller" {
  count       = local.is_iam ? 1 : 0
  name        = "${var.name}-caller"
  description = "Calls lockkeeper as its address is called, and no other way"
  policy      = local.has_url ? module.policies.url_caller : module.policies.api_caller
}

locals {
  takers = {
    caller    = { subject = var.caller_subject, principal = var.caller_principal }
    publisher = { subject = var.publisher_subject, principal = var.publisher_principal }
  }
  taken = {
    for role, taker in local.takers : role => taker
    if(taker.subject != null || taker.principal != null) && (role == "publisher" || local.is_iam)
  }
}

# Named, because lockkeeper's policy names the caller's.
resource "aws_iam_role" "taken" {
  for_each = local.taken
  name     = "${var.name}-${each.key}"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      each.value.subject == null ? [] : [{
        Effect    = "Allow"
        Principal = { Federated = var.github_provider_arn }
        Action    = "sts:AssumeRoleWithWebIdentity"
        Condition = {
          StringEquals = {
            "token.actions.githubusercontent.com:aud" = "sts.amazonaws.com"
            "token.actions.githubusercontent.com:sub" = each.value.subject
          }
        }
      }],
      each.value.principal == null ? [] : [{
        Effect    = "Allow"
        Principal = { AWS = each.value.principal }
        Action    = "sts:AssumeRole"
      }],
    )
  })
}

resource "aws_iam_role_policy_attachment" "taken" {
  for_each   = local.taken
  role       = aws_iam_role.taken[each.key].name
  policy_arn = each.key == "publisher" ? aws_iam_policy.publisher.arn : aws_iam_policy.caller[0].arn
}
