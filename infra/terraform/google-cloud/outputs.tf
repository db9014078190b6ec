output "url" {
  description = "For publicUrl of the configuration, the policy's audience, and callers."
  value       = local.url
}

output "push_subject" {
  description = "sub of the policy's rule for Pub/Sub."
  value       = google_service_account.this["lockkeeper-push"].unique_id
}

output "database_user" {
  description = "User of the instance, to be made as cloud_iam_service_account and given its rights by infra/sql/roles-postgres.sql."
  value       = trimsuffix(google_service_account.this["lockkeeper-runner"].email, ".gserviceaccount.com")
}

output "job" {
  description = "For work.cloudRunJob of the configuration."
  value       = google_cloud_run_v2_job.this["lockkeeper-work"].id
}
