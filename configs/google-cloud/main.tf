# What the pipeline needs of Google Cloud besides a GKE cluster with Workload Identity: a bucket for spans and models, a place
# for images, and an account that pods become without a key. For OpenTofu 1.8 or newer; see docs/kubernetes.md.
terraform {
  required_version = ">= 1.8"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 6.0, < 9.0"
    }
  }
}

variable "project" {
  description = "Project that everything belongs to."
  type        = string
}

variable "region" {
  description = "Region of the bucket and of the images."
  type        = string
  default     = "europe-west1"
}

variable "namespace" {
  description = "Namespace of the cluster whose service account bike-pipeline may become the account."
  type        = string
  default     = "bike"
}

provider "google" {
  project = var.project
  region  = var.region
}

resource "google_storage_bucket" "pipeline" {
  name                        = "${var.project}-bike-pipeline"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  # A model that was overwritten or deleted can be had back for a month.
  versioning {
    enabled = true
  }
  lifecycle_rule {
    condition {
      days_since_noncurrent_time = 30
    }
    action {
      type = "Delete"
    }
  }
}

resource "google_artifact_registry_repository" "images" {
  repository_id = "bike"
  location      = var.region
  format        = "DOCKER"

  # What was tested under a tag is what is deployed under it.
  docker_config {
    immutable_tags = true
  }
}

resource "google_service_account" "pipeline" {
  account_id   = "bike-pipeline"
  display_name = "Stages, servers and the watch loop of the bike pipeline"
}

resource "google_storage_bucket_iam_member" "pipeline" {
  bucket = google_storage_bucket.pipeline.name
  role   = "roles/storage.objectUser"
  member = google_service_account.pipeline.member
}

resource "google_service_account_iam_member" "workload_identity" {
  service_account_id = google_service_account.pipeline.name
  role               = "roles/iam.workloadIdentityUser"
  member             = "serviceAccount:${var.project}.svc.id.goog[${var.namespace}/bike-pipeline]"
}

output "bucket" {
  description = "For the settings: span_store, serving_folder and pipeline_root of kubeflow and vertex."
  value       = google_storage_bucket.pipeline.url
}

output "images" {
  description = "For the settings: kubeflow.image begins so; .ci/registry pushes there."
  value       = "${var.region}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.images.repository_id}"
}

output "service_account" {
  description = "For the annotation iam.gke.io/gcp-service-account of the service account that kubeflow.service_account names."
  value       = google_service_account.pipeline.email
}
