data "google_project" "this" {
  project_id = var.project
}

locals {
  number = data.google_project.this.number
  # What Cloud Run calls it besides its other name: known before it is there, for publicUrl and the policy's audience.
  url = "https://lockkeeper-${local.number}.${var.region}.run.app"
  jobs = {
    lockkeeper-work  = { args = ["work", "--deadline", "350m"], timeout = "21600s", retries = 3 }
    lockkeeper-sweep = { args = ["converge", "--all", "--deadline", "50m"], timeout = "3600s", retries = 0 }
  }
}

# ---- The service: answers callers and Pub/Sub, and executes nothing

resource "google_cloud_run_v2_service" "this" {
  project  = var.project
  location = var.region
  name     = "lockkeeper"
  ingress  = "INGRESS_TRAFFIC_ALL"
  # Who calls shows a token to lockkeeper, and its policy decides. Cloud Run's own check would take the signature off it.
  invoker_iam_disabled = true

  template {
    service_account                  = google_service_account.this["lockkeeper-runner"].email
    timeout                          = "300s"
    max_instance_request_concurrency = 80
    scaling {
      max_instance_count = 2
    }
    volumes {
      name = "cloudsql"
      cloud_sql_instance {
        instances = [var.sql_instance]
      }
    }
    containers {
      image = var.image
      args  = ["serve"]
      ports {
        container_port = 8080
      }
      env {
        name  = "GOOGLE_CLOUD_PROJECT"
        value = var.project
      }
      resources {
        limits = { cpu = "1", memory = "512Mi" }
      }
      volume_mounts {
        name       = "cloudsql"
        mount_path = "/cloudsql"
      }
      startup_probe {
        period_seconds    = 2
        failure_threshold = 15
        http_get {
          path = "/health/ready"
          port = 8080
        }
      }
      liveness_probe {
        period_seconds = 30
        http_get {
          path = "/health/live"
          port = 8080
        }
      }
    }
  }
}

# ---- The jobs, from the same image: one executes what the service has accepted, one looks for events that got lost

resource "google_cloud_run_v2_job" "this" {
  for_each = local.jobs
  project  = var.project
  location = var.region
  name     = each.key

  template {
    parallelism = 1
    task_count  = 1
    template {
      service_account = google_service_account.this["lockkeeper-runner"].email
      timeout         = each.value.timeout
      max_retries     = each.value.retries
      volumes {
        name = "cloudsql"
        cloud_sql_instance {
          instances = [var.sql_instance]
        }
      }
      containers {
        image = var.image
        args  = each.value.args
        env {
          name  = "GOOGLE_CLOUD_PROJECT"
          value = var.project
        }
        resources {
          limits = { cpu = "1", memory = "512Mi" }
        }
        volume_mounts {
          name       = "cloudsql"
          mount_path = "/cloudsql"
        }
      }
    }
  }
}

# ---- The schedules

resource "google_cloud_scheduler_job" "this" {
  for_each = {
    lockkeeper-sweep = var.sweep
    # What an execution that died has left, when nobody asks for anything new.
    lockkeeper-work = "7 * * * *"
  }
  project  = var.project
  region   = var.region
  name     = each.key
  schedule = each.value

  http_target {
    http_method = "POST"
    uri         = "https://run.googleapis.com/v2/${google_cloud_run_v2_job.this[each.key].id}:run"
    oauth_token {
      service_account_email = google_service_account.this["lockkeeper-cron"].email
    }
  }
}
