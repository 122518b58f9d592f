"""The version policy `promoted`: serve what the deployment's state in the model's folder says, and its labels."""

from __future__ import annotations

from dataclasses import replace

from bike_pipeline.model_registry import ModelRegistry
from bike_pipeline.serving.server.version_policy import ModelConfig


def resolved(config: ModelConfig) -> ModelConfig:
    """Return what a configuration means now; reads files where the policy is `promoted`.

    Nothing serves but what has a label, and a request that names no version gets the one that is `stable`.

    Raises:
        StorageError: the state cannot be read.
    """
    if config.policy != "promoted":
        return config
    registry = ModelRegistry(config.base_path)
    found = registry.deployment()
    if found is None:
        promoted = registry.serving()
        return replace(config, policy="specific", specific=() if promoted is None else (promoted,))
    return replace(config, policy="specific", specific=tuple(found.labels.values()), labels=dict(found.labels))
