# Who may do what, and no more. infra/google-cloud.md gives the same rights by gcloud.

resource "google_service_account" "this" {
  for_each = {
    lockkeeper-runner = "Service and jobs: reads releases, changes databases"
    lockkeeper-push   = "Whom Pub/Sub shows itself as: may wake, by lockkeeper's policy"
    lockkeeper-cron   = "Starts the two jobs"
  }
  project      = var.project
  account_id   = each.key
  display_name = each.value
}

locals {
  runner = "serviceAccount:${google_service_account.this["lockkeeper-runner"].email}"
  cron   = "serviceAccount:${google_service_account.this["lockkeeper-cron"].email}"
  pubsub = "serviceAccount:service-${local.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
}

# ---- The runner

resource "google_storage_bucket_iam_member" "runner" {
  bucket = google_storage_bucket.releases.name
  role   = "roles/storage.objectViewer"
  member = local.runner
}

resource "google_project_iam_member" "runner" {
  for_each = toset(["roles/cloudsql.client", "roles/cloudsql.instanceUser"])
  project  = var.project
  role     = each.key
  member   = local.runner
}

resource "google_secret_manager_secret_iam_member" "runner" {
  for_each  = var.secrets
  project   = var.project
  secret_id = each.key
  role      = "roles/secretmanager.secretAccessor"
  member    = local.runner
}

# ---- Who starts which job: the service, and the job itself when its time is over; the schedules

resource "google_cloud_run_v2_job_iam_member" "runner" {
  project  = var.project
  location = var.region
  name     = google_cloud_run_v2_job.this["lockkeeper-work"].name
  role     = "roles/run.invoker"
  member   = local.runner
}

resource "google_cloud_run_v2_job_iam_member" "cron" {
  for_each = local.jobs
  project  = var.project
  location = var.region
  name     = google_cloud_run_v2_job.this[each.key].name
  role     = "roles/run.invoker"
  member   = local.cron
}

# ---- From the bucket to Pub/Sub, and on to the dead letters

data "google_storage_project_service_account" "this" {
  project = var.project
}

resource "google_pubsub_topic_iam_member" "this" {
  for_each = {
    (google_pubsub_topic.releases.name) = "serviceAccount:${data.google_storage_project_service_account.this.email_address}"
    (google_pubsub_topic.dead.name)     = local.pubsub
  }
  project = var.project
  topic   = each.key
  role    = "roles/pubsub.publisher"
  member  = each.value
}

resource "google_pubsub_subscription_iam_member" "pubsub" {
  project      = var.project
  subscription = google_pubsub_subscription.push.name
  role         = "roles/pubsub.subscriber"
  member       = local.pubsub
}

# ---- Publishers: create, and read; replace only what each release replaces

resource "google_project_iam_custom_role" "replaces_head" {
  project     = var.project
  role_id     = "lockkeeperReplacesHead"
  title       = "Replaces what each release replaces"
  description = "To replace an object is to delete it: given for head.json and the documents of releases only"
  permissions = ["storage.objects.delete"]
}

locals {
  replaced = join(" || ", flatten([for stream in sort(var.streams) : [
    for name in ["head.json", "timestamp.sigstore.jsonl", "releases/"] :
    "resource.name.startsWith(\"projects/_/buckets/${var.bucket}/objects/${stream}/${name}\")"
  ]]))
}

resource "google_storage_bucket_iam_member" "publisher" {
  for_each = {
    for pair in setproduct(var.publishers, ["roles/storage.objectCreator", "roles/storage.objectViewer"]) :
    join(" ", pair) => { member = pair[0], role = pair[1] }
  }
  bucket = google_storage_bucket.releases.name
  role   = each.value.role
  member = each.value.member
}

resource "google_storage_bucket_iam_member" "publisher_replaces" {
  for_each = var.publishers
  bucket   = google_storage_bucket.releases.name
  role     = google_project_iam_custom_role.replaces_head.id
  member   = each.key
  condition {
    title      = "head and releases"
    expression = local.replaced
  }
}
