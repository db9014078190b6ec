# One stream, one database, one pipeline that publishes.

provider "google" {
  project = "my-project"
  region  = "europe-west1"
}

module "lockkeeper" {
  source       = "../.."
  project      = "my-project"
  region       = "europe-west1"
  image        = "europe-west1-docker.pkg.dev/my-project/lockkeeper/lockkeeper:1"
  sql_instance = "my-project:europe-west1:orders"
  bucket       = "my-project-releases"
  streams      = ["orders"]
  publishers   = ["principalSet://iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/github/attribute.repository/acme/orders"]
}

# The token is looked at where this flag is on, as part of your instance:
#   database_flags { name = "cloudsql.iam_authentication", value = "on" }
resource "google_sql_user" "runner" {
  project  = "my-project"
  instance = "orders"
  name     = module.lockkeeper.database_user
  type     = "CLOUD_IAM_SERVICE_ACCOUNT"
}

output "url" {
  value = module.lockkeeper.url
}

output "push_subject" {
  value = module.lockkeeper.push_subject
}
