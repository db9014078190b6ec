# Who may do what, as documents and nothing else. It needs no provider, so that a test can evaluate it, and hold it against
# what infra/aws/template.yaml says: that form is the one that was deployed and tried.

locals {
  arn         = "arn:${var.aws.partition}"
  here        = "${var.aws.region}:${var.aws.account}"
  bucket      = "${local.arn}:s3:::${var.bucket}"
  front       = "${local.arn}:lambda:${local.here}:function:${var.name}-front"
  worker      = "${local.arn}:lambda:${local.here}:function:${var.name}-worker"
  queue       = "${local.arn}:sqs:${local.here}:${var.name}-releases"
  lost        = "${local.arn}:sqs:${local.here}:${var.name}-lost-executions"
  rule        = "${local.arn}:events:${local.here}:rule/${var.name}-new-head"
  log         = "${local.arn}:logs:${local.here}:log-group:/lockkeeper/${var.name}:*"
  has_secrets = length(var.secret_arns) > 0
  version     = "2012-10-17"

  runner = {
    Version = local.version
    Statement = concat(
      [
        {
          Sid      = "ReadsReleases"
          Effect   = "Allow"
          Action   = ["s3:GetObject", "s3:GetObjectVersion"]
          Resource = "${local.bucket}/*"
        },
        # without it, S3 answers "denied" for what is not there, such as a next root
        {
          Sid      = "SeesWhatIsMissing"
          Effect   = "Allow"
          Action   = "s3:ListBucket"
          Resource = local.bucket
        },
        {
          Sid      = "StartsTheWorker"
          Effect   = "Allow"
          Action   = "lambda:InvokeFunction"
          Resource = local.worker
        },
        {
          Sid      = "SaysWhatWasLost"
          Effect   = "Allow"
          Action   = "sqs:SendMessage"
          Resource = local.lost
        },
        {
          Sid      = "WritesItsLog"
          Effect   = "Allow"
          Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
          Resource = local.log
        },
      ],
      var.bucket_key_arn == null ? [] : [{
        Sid       = "DecryptsReleases"
        Effect    = "Allow"
        Action    = "kms:Decrypt"
        Resource  = var.bucket_key_arn
        Condition = { StringEquals = { "kms:ViaService" = "s3.${var.aws.region}.${var.aws.dns_suffix}" } }
      }],
      length(var.database_user_arns) == 0 ? [] : [{
        Sid      = "LogsInToDatabases"
        Effect   = "Allow"
        Action   = "rds-db:connect"
        Resource = var.database_user_arns
      }],
      !local.has_secrets ? [] : [{
        Sid      = "ReadsSecrets"
        Effect   = "Allow"
        Action   = "secretsmanager:GetSecretValue"
        Resource = var.secret_arns
      }],
      !local.has_secrets || var.secrets_key_arn == null ? [] : [{
        Sid       = "DecryptsSecrets"
        Effect    = "Allow"
        Action    = "kms:Decrypt"
        Resource  = var.secrets_key_arn
        Condition = { StringEquals = { "kms:ViaService" = "secretsmanager.${var.aws.region}.${var.aws.dns_suffix}" } }
      }],
      # Lambda joins the VPC with the function's role; these know no narrower resource.
      !var.in_vpc ? [] : [{
        Sid    = "JoinsTheVpc"
        Effect = "Allow"
        Action = [
          "ec2:CreateNetworkInterface",
          "ec2:DescribeNetworkInterfaces",
          "ec2:DescribeSubnets",
          "ec2:DeleteNetworkInterface",
          "ec2:AssignPrivateIpAddresses",
          "ec2:UnassignPrivateIpAddresses",
        ]
        Resource = "*"
      }],
      # … and the code that runs in it has no business with them
      !var.in_vpc ? [] : [{
        Sid       = "OnlyLambdaJoinsIt"
        Effect    = "Deny"
        Action    = "ec2:*"
        Resource  = "*"
        Condition = { ArnLike = { "lambda:SourceFunctionArn" = "${local.arn}:lambda:${local.here}:function:${var.name}-*" } }
      }],
    )
  }

  front_role = {
    Version = local.version
    Statement = [{
      Sid      = "TakesMessages"
      Effect   = "Allow"
      Action   = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"]
      Resource = local.queue
    }]
  }

  sweep = {
    Version = local.version
    Statement = [{
      Sid      = "StartsTheFront"
      Effect   = "Allow"
      Action   = "lambda:InvokeFunction"
      Resource = local.front
    }]
  }

  # Lambda asks for both. Past the URL, a caller could write the event that says who called.
  url_caller = {
    Version = local.version
    Statement = [
      {
        Sid       = "CallsTheUrl"
        Effect    = "Allow"
        Action    = "lambda:InvokeFunctionUrl"
        Resource  = local.front
        Condition = { StringEquals = { "lambda:FunctionUrlAuthType" = "AWS_IAM" } }
      },
      {
        Sid       = "OnlyByTheUrl"
        Effect    = "Allow"
        Action    = "lambda:InvokeFunction"
        Resource  = local.front
        Condition = { Bool = { "lambda:InvokedViaFunctionUrl" = "true" } }
      },
    ]
  }

  api_caller = {
    Version = local.version
    Statement = [{
      Sid      = "CallsTheApi"
      Effect   = "Allow"
      Action   = "execute-api:Invoke"
      Resource = "${local.arn}:execute-api:${local.here}:${var.http_api_id == null ? "" : var.http_api_id}/*"
    }]
  }

  publisher = {
    Version = local.version
    Statement = concat(
      [
        {
          Sid    = "WritesReleases"
          Effect = "Allow"
          Action = "s3:PutObject"
          Resource = [for name in [
            "blobs/sha256-*",
            "packs/sha256-*",
            "manifests/sha256-*",
            "releases/sha256-*",
            "root/*",
            "head.json",
            "timestamp.sigstore.jsonl",
          ] : "${local.bucket}/${var.publisher_prefix}${name}"]
        },
        {
          Sid      = "ReadsWhatIsThere"
          Effect   = "Allow"
          Action   = ["s3:GetObject", "s3:GetObjectVersion"]
          Resource = "${local.bucket}/${var.publisher_prefix}*"
        },
        {
          Sid      = "SeesWhatIsMissing"
          Effect   = "Allow"
          Action   = "s3:ListBucket"
          Resource = local.bucket
        },
      ],
      var.bucket_key_arn == null ? [] : [{
        Sid       = "EncryptsReleases"
        Effect    = "Allow"
        Action    = ["kms:GenerateDataKey", "kms:Decrypt"]
        Resource  = var.bucket_key_arn
        Condition = { StringEquals = { "kms:ViaService" = "s3.${var.aws.region}.${var.aws.dns_suffix}" } }
      }],
    )
  }

  bucket_policy = {
    Version = local.version
    Statement = concat(
      [
        {
          Sid       = "OnlyTls"
          Effect    = "Deny"
          Principal = "*"
          Action    = "s3:*"
          Resource  = [local.bucket, "${local.bucket}/*"]
          Condition = { Bool = { "aws:SecureTransport" = "false" } }
        },
        {
          Sid       = "NothingIsDeleted"
          Effect    = "Deny"
          Principal = "*"
          Action    = ["s3:DeleteObject", "s3:DeleteObjectVersion", "s3:PutBucketVersioning"]
          Resource  = [local.bucket, "${local.bucket}/*"]
        },
      ],
      # The part of a multipart upload that makes the object carries the condition; the others cannot.
      !var.require_conditional_writes ? [] : [{
        Sid       = "NothingIsReplacedUnseen"
        Effect    = "Deny"
        Principal = "*"
        Action    = "s3:PutObject"
        Resource  = "${local.bucket}/*"
        Condition = {
          Null         = { "s3:if-none-match" = "true", "s3:if-match" = "true" }
          BoolIfExists = { "s3:ObjectCreationOperation" = "true" }
        }
      }],
      !var.require_conditional_writes ? [] : [{
        Sid       = "ContentIsWrittenOnce"
        Effect    = "Deny"
        Principal = "*"
        Action    = "s3:PutObject"
        Resource = [
          "${local.bucket}/*blobs/sha256-*",
          "${local.bucket}/*packs/sha256-*",
          "${local.bucket}/*manifests/sha256-*",
          "${local.bucket}/*root/*.root.json",
        ]
        Condition = {
          Null         = { "s3:if-none-match" = "true" }
          BoolIfExists = { "s3:ObjectCreationOperation" = "true" }
        }
      }],
    )
  }

  from_bucket = {
    Sid       = "FromTheBucket"
    Effect    = "Allow"
    Principal = { Service = "s3.amazonaws.com" }
    Action    = "sqs:SendMessage"
    Resource  = local.queue
    Condition = {
      ArnEquals    = { "aws:SourceArn" = local.bucket }
      StringEquals = { "aws:SourceAccount" = var.aws.account }
    }
  }

  from_eventbridge = {
    Sid       = "FromEventBridge"
    Effect    = "Allow"
    Principal = { Service = "events.amazonaws.com" }
    Action    = "sqs:SendMessage"
    Resource  = local.queue
    Condition = {
      ArnEquals    = { "aws:SourceArn" = local.rule }
      StringEquals = { "aws:SourceAccount" = var.aws.account }
    }
  }

  queue_policy = {
    Version = local.version
    Statement = [
      var.by_eventbridge ? local.from_eventbridge : local.from_bucket,
      {
        Sid       = "OnlyTls"
        Effect    = "Deny"
        Principal = "*"
        Action    = "sqs:*"
        Resource  = local.queue
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
    ]
  }
}

# One text each: Terraform would make lists of statements with different fields into one type.

output "runner" {
  description = "Both functions: reads releases, reaches databases, starts the worker, writes its log."
  value       = jsonencode(local.runner)
}

output "front" {
  description = "The front besides: takes the queue's messages."
  value       = jsonencode(local.front_role)
}

output "sweep" {
  description = "The schedule: starts the front."
  value       = jsonencode(local.sweep)
}

output "url_caller" {
  description = "Callers of the function URL."
  value       = jsonencode(local.url_caller)
}

output "api_caller" {
  description = "Callers of the HTTP API with AWS credentials."
  value       = jsonencode(local.api_caller)
}

output "publisher" {
  description = "Whoever publishes releases."
  value       = jsonencode(local.publisher)
}

output "bucket" {
  description = "The bucket's own."
  value       = jsonencode(local.bucket_policy)
}

output "queue" {
  description = "The queue's own."
  value       = jsonencode(local.queue_policy)
}
