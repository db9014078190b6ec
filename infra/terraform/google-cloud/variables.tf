variable "project" {
  description = "Id of the project that all of it is in, my-project."
  type        = string
}

variable "region" {
  description = "Region of bucket, service, jobs and schedule, such as europe-west1; the bucket's events come from there."
  type        = string
}

variable "image" {
  description = "lockkeeper's image with the configuration in it, of infra/google-cloud/Dockerfile, by its digest."
  type        = string
}

variable "sql_instance" {
  description = "Connection name of the Cloud SQL instance, my-project:europe-west1:orders; its flag cloudsql.iam_authentication is on."
  type        = string
}

variable "streams" {
  description = "Prefixes in the bucket under which releases are, one for each stream, without a slash at the end: orders."
  type        = set(string)
}

variable "bucket" {
  description = "Name of the bucket to make for releases."
  type        = string
}

variable "publishers" {
  description = "Who may publish: principals such as a pipeline's principalSet://iam.googleapis.com/…"
  type        = set(string)
  default     = []
}

variable "secrets" {
  description = "Ids of the secrets that the configuration names as urlSecret or passwordSecret; none with iam: cloud-sql."
  type        = set(string)
  default     = []
}

variable "sweep" {
  description = "When each target is looked at, for events that got lost."
  type        = string
  default     = "*/15 * * * *"
}
