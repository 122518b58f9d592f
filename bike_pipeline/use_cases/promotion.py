"""Which pushed version serves: promote one, go back to one, list what was decided."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bike_pipeline.errors import ConfigurationError, ModelError

if TYPE_CHECKING:
    from bike_pipeline.model_registry.deployment import Change
    from bike_pipeline.settings import Settings


def promote(settings: Settings, version: int | None = None, label: str = "stable", reason: str = "") -> Change | None:
    """Validate a pushed version if that was not done, let it serve, and tell the servers of the settings.

    Args:
        settings: the settings.
        version: a pushed version; None is the newest.
        label: the label that it gets; "stable" is the one that serves.
        reason: why, for the history.

    Returns:
        The change; None if the version has the label already.

    Raises:
        ModelError: there is no such version, or its files are not those that were pushed.
        ServerError: it does not pass, or a server does not follow.
    """
    from bike_pipeline.model_registry import signing
    from bike_pipeline.rollout import promotion
    from bike_pipeline.rollout.targets import RolloutTargets

    _check_label(label)
    signing.use(settings)
    chosen = version_to_promote(settings, version)
    return promotion.promote(settings.serving_path, chosen, RolloutTargets.of(settings), label, reason)


def version_to_promote(settings: Settings, version: int | None) -> int:
    """Return the version, or the newest pushed one for None."""
    from bike_pipeline.model_registry import ModelRegistry

    if version is None:
        version = max(ModelRegistry(settings.serving_path).versions(), default=None)
    if version is None:
        raise ModelError("nothing is pushed", where=settings.serving_path, fix="run the pipeline: `bike-pipeline run`")
    return version


def rollback(settings: Settings, to: int | None = None, label: str = "stable", reason: str = "") -> Change:
    """Give a label back to a version that had it before; None is the one before. Nothing is loaded for it."""
    from bike_pipeline.model_registry import signing
    from bike_pipeline.rollout import promotion
    from bike_pipeline.rollout.targets import RolloutTargets

    _check_label(label)
    signing.use(settings)
    return promotion.rollback(settings.serving_path, RolloutTargets.of(settings), to, label, reason)


def history(settings: Settings) -> list[Change]:
    """Return what was validated, promoted and rolled back, oldest first."""
    from bike_pipeline.model_registry import ModelRegistry

    return ModelRegistry(settings.serving_path).history()


def _check_label(label: str) -> None:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", label):
        raise ConfigurationError(
            f"'{label}' is no label",
            where="--label",
            fix="begin with a letter; letters, digits, '_', '.' and '-' follow",
        )
