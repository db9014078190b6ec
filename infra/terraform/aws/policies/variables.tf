variable "name" {
  description = "What the module's resources are called after."
  type        = string
}

variable "aws" {
  description = "Where they are."
  type = object({
    partition  = string
    region     = string
    account    = string
    dns_suffix = string
  })
}

variable "bucket" {
  description = "The bucket of releases."
  type        = string
}

variable "by_eventbridge" {
  description = "Whether the bucket's notifications come by EventBridge instead of straight to the queue."
  type        = bool
}

variable "require_conditional_writes" {
  type = bool
}

variable "bucket_key_arn" {
  type    = string
  default = null
}

variable "publisher_prefix" {
  type    = string
  default = "*"
}

variable "database_user_arns" {
  type    = list(string)
  default = []
}

variable "secret_arns" {
  type    = list(string)
  default = []
}

variable "secrets_key_arn" {
  type    = string
  default = null
}

variable "in_vpc" {
  type    = bool
  default = false
}

variable "http_api_id" {
  description = "The HTTP API that callers with AWS credentials use; null where they use the function URL."
  type        = string
  default     = null
}
