# ---- The bucket. Nothing in it is lost: what is replaced stays as an older generation, what is deleted for thirty days.
# A retention policy is not for it: head.json is replaced with each release.

resource "google_storage_bucket" "releases" {
  project                     = var.project
  name                        = var.bucket
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  versioning {
    enabled = true
  }
  soft_delete_policy {
    retention_duration_seconds = 2592000
  }
}

# ---- From a new head.json to the service

resource "google_pubsub_topic" "releases" {
  project = var.project
  name    = "lockkeeper-releases"
}

resource "google_pubsub_topic" "dead" {
  project = var.project
  name    = "lockkeeper-dead-letters"
}

# Something has to keep what comes there.
resource "google_pubsub_subscription" "dead" {
  project                    = var.project
  name                       = "lockkeeper-dead-letters"
  topic                      = google_pubsub_topic.dead.id
  message_retention_duration = "604800s"
}

# Once a release: of all that is written, head.json is the last, and the only object whose name begins like this.
resource "google_storage_notification" "head" {
  for_each           = var.streams
  bucket             = google_storage_bucket.releases.name
  topic              = google_pubsub_topic.releases.id
  payload_format     = "NONE"
  event_types        = ["OBJECT_FINALIZE"]
  object_name_prefix = "${each.key}/head.json"
  depends_on         = [google_pubsub_topic_iam_member.this]
}

resource "google_pubsub_subscription" "push" {
  project              = var.project
  name                 = "lockkeeper-releases"
  topic                = google_pubsub_topic.releases.id
  ack_deadline_seconds = 60
  push_config {
    push_endpoint = "${local.url}/events"
    oidc_token {
      service_account_email = google_service_account.this["lockkeeper-push"].email
      audience              = local.url
    }
  }
  retry_policy {
    minimum_backoff = "10s"
    maximum_backoff = "600s"
  }
  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.dead.id
    max_delivery_attempts = 20
  }
  expiration_policy {
    ttl = ""
  }
  depends_on = [google_cloud_run_v2_service.this]
}
