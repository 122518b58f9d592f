"""Pushed versions of the model: their files, manifest and signature, and the log of which one serves."""

from bike_pipeline.model_registry.registry import ModelRegistry, is_intact, local_copy

__all__ = ["ModelRegistry", "is_intact", "local_copy"]
