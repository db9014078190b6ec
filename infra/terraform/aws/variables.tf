variable "name" {
  description = "What everything is called after, such as orders-db."
  type        = string
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,26}$", var.name))
    error_message = "Up to 27 lower-case letters, digits and dashes, the first a letter: the bucket's name begins with it."
  }
}

variable "code_dir" {
  description = "The folder that `node infra/aws/bundle.ts` made."
  type        = string
}

variable "config_dir" {
  description = "A folder that holds lockkeeper/lockkeeper.yaml and what it names (policy, keys)."
  type        = string
}

# ---- Releases

variable "existing_bucket" {
  description = "Name of a bucket that you have and that sends its events to EventBridge. Null: this module makes one."
  type        = string
  default     = null
}

variable "notifications" {
  description = "How the module's own bucket says that it has something new: \"queue\", or \"eventbridge\", which leaves the bucket's one notification document to others."
  type        = string
  default     = "queue"
  validation {
    condition     = contains(["queue", "eventbridge"], var.notifications)
    error_message = "Either queue or eventbridge."
  }
}

variable "require_conditional_writes" {
  description = "The module's own bucket refuses writes that would replace something unseen. False only lets tools copy releases into it that cannot write with a condition, such as aws s3 sync."
  type        = bool
  default     = true
}

variable "bucket_key_arn" {
  description = "The KMS key that the bucket's objects are encrypted with. Null: the one of S3."
  type        = string
  default     = null
}

variable "publisher_prefix" {
  description = "What a publisher's keys begin with, such as orders/. An asterisk: any stream in the bucket."
  type        = string
  default     = "*"
}

# ---- Runner

variable "architecture" {
  description = "arm64 or x86_64."
  type        = string
  default     = "arm64"
}

variable "memory_size" {
  description = "Megabytes of each function. Its share of a processor grows with it, up to one at 1769."
  type        = number
  default     = 1024
}

variable "workers_at_once" {
  description = "Reserved concurrency of the worker, which bounds connections to databases. Null: not bounded here."
  type        = number
  default     = null
}

variable "sweep_schedule" {
  description = "How often every target is looked at, for what a lost notification did not say."
  type        = string
  default     = "rate(15 minutes)"
}

variable "log_retention_days" {
  description = "Days that log lines are kept."
  type        = number
  default     = 90
}

# ---- Databases

variable "subnet_ids" {
  description = "Private subnets from which the databases are reached. Empty: no VPC."
  type        = list(string)
  default     = []
}

variable "security_group_ids" {
  description = "Security groups of the functions in those subnets."
  type        = list(string)
  default     = []
}

variable "database_user_arns" {
  description = "Database users that log in by an IAM token, each arn:aws:rds-db:REGION:ACCOUNT:dbuser:RESOURCE-ID/USER."
  type        = list(string)
  default     = []
}

variable "secret_arns" {
  description = "Secrets of Secrets Manager that the configuration names."
  type        = list(string)
  default     = []
}

variable "secrets_key_arn" {
  description = "The KMS key of those secrets, where it is not the one of Secrets Manager."
  type        = string
  default     = null
}

# ---- Who may call and publish, who is told

variable "access" {
  description = "\"iam\": an HTTP API for callers with AWS credentials. \"iam-function-url\": the function's own address for them. \"oidc\": an HTTP API whose callers show tokens, which the policy judges. \"none\": only bucket and schedule start runs."
  type        = string
  default     = "iam"
  validation {
    condition     = contains(["iam", "iam-function-url", "oidc", "none"], var.access)
    error_message = "One of iam, iam-function-url, oidc, none."
  }
}

variable "github_provider_arn" {
  description = "The account's OIDC provider for token.actions.githubusercontent.com, where workflows take the roles below."
  type        = string
  default     = null
}

variable "caller_subject" {
  description = "Workflow that may take the caller's role, such as repo:acme/orders:environment:production."
  type        = string
  default     = null
}

variable "caller_principal" {
  description = "IAM role, user or account that may take the caller's role."
  type        = string
  default     = null
}

variable "publisher_subject" {
  description = "Workflow that may take the publisher's role."
  type        = string
  default     = null
}

variable "publisher_principal" {
  description = "IAM role, user or account that may take the publisher's role."
  type        = string
  default     = null
}

variable "alarm_topic_arn" {
  description = "SNS topic that alarms are sent to. Null: they are only shown."
  type        = string
  default     = null
}
