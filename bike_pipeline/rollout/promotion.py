"""From a pushed version to one that serves: validated, promoted, told to the servers."""

from __future__ import annotations

from pathlib import Path

from bike_pipeline.errors import ServerError
from bike_pipeline.model_registry import ModelRegistry
from bike_pipeline.model_registry.deployment import PUSHED, REFUSED, REPLACED, ROLLED_BACK, STABLE, Change
from bike_pipeline.rollout import validation
from bike_pipeline.rollout.targets import RolloutTargets, roll_out

AUTOMATIC = "a run pushed it"
WAITING = "not promoted: `bike-pipeline promote` does that"
WITHHELD = "not promoted again: somebody went back from it; `bike-pipeline promote` does that"


def after_push(base_path: str | Path, version: int, targets: RolloutTargets) -> str:
    """Validate and promote what a run pushed, where that is to happen by itself.

    Somebody's decision stands: a version that was rolled back or replaced by hand is not promoted again by a run.

    Returns:
        Why it is not promoted; "" where it is.

    Raises:
        ServerError: it does not pass, or a server does not follow.
        ModelError: its files are not those that were pushed.
        BusyError: another process is changing what is promoted.
        StorageError: the state cannot be read or written.
    """
    if not targets.promotion.automatic:
        return "" if ModelRegistry(base_path).serving() == version else WAITING
    if _withheld(base_path, version):
        return WITHHELD
    promote(base_path, version, targets, reason=AUTOMATIC)
    return ""


def _withheld(base_path: str | Path, version: int) -> bool:
    registry = ModelRegistry(base_path)
    deployment = registry.deployment()
    if deployment is None:
        return False
    if deployment.status(version) in (ROLLED_BACK, REPLACED):
        return True
    record = registry.push_record(version) or {}
    left = [v for v, status in deployment.statuses.items() if status == ROLLED_BACK]
    # The same model under another number, since the files of its first push were lost.
    return any((registry.push_record(v) or {}).get("fingerprint", "") == record.get("fingerprint") for v in left)


def promote(
    base_path: str | Path,
    version: int,
    targets: RolloutTargets,
    label: str = STABLE,
    reason: str = "",
) -> Change | None:
    """Validate a version where it is not, promote it, and tell the servers.

    Returns:
        The change; None where it has the label already, in which case the servers are told again.

    Raises:
        ServerError: it does not pass, or a server does not follow.
        ModelError: there is no such version, or its files are not those that were pushed.
        BusyError: another process is changing what is promoted.
        StorageError: the state cannot be read or written.
    """
    registry = ModelRegistry(base_path)
    registry.require_sound(version)
    registry.begin()
    deployment = registry.deployment()
    if deployment is not None and deployment.status(version) in (PUSHED, REFUSED):
        _validate(base_path, version, targets)
    change = registry.promote(version, label, reason)
    roll_out(base_path, targets)
    return change


def _validate(base_path: str | Path, version: int, targets: RolloutTargets) -> None:
    registry = ModelRegistry(base_path)
    settings = targets.promotion.validation
    if not settings.enabled:
        registry.set_validated(version, passed=True, reason="validation is switched off")
        return
    try:
        report = validation.validate(base_path, version, settings)
    except ServerError as error:
        registry.set_validated(version, passed=False, reason=str(error))
        raise
    registry.set_validated(version, passed=True, reason=report.in_words())


def rollback(
    base_path: str | Path, targets: RolloutTargets, to: int | None = None, label: str = STABLE, reason: str = ""
) -> Change:
    """Give a label back to a version that had it before, and tell the servers. Nothing is loaded for it here.

    Raises:
        ServerError: a server does not follow.
        ModelError: nothing had the label before, or that version is gone or damaged.
        BusyError: another process is changing what is promoted.
        StorageError: the state cannot be read or written.
    """
    change = ModelRegistry(base_path).rollback(to, label, reason)
    roll_out(base_path, targets)
    return change
