"""Tracking beside the pipeline: runs told to MLflow, span versions written for DVC."""
