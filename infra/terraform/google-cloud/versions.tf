# What could be checked of this module where it was written: its form (terraform fmt), and that it gives the same accounts,
# roles, names and arguments as infra/google-cloud and infra/google-cloud.md. Google's provider was not to be had there, so
# neither terraform validate nor a plan has seen it. Look at your first plan before you apply it.
terraform {
  required_version = ">= 1.9"
  required_providers {
    google = {
      source = "hashicorp/google"
      # with invoker_iam_disabled, for everybody
      version = ">= 7.0"
    }
  }
}
