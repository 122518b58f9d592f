"""Tracking beside the pipeline: runs sent to MLflow, span versions written for DVC."""
