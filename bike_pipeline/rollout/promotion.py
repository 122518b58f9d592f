"""From a pushed version to one that serves: validated, promoted, rolled out to the targets.

A BusyError means that another process is changing what is promoted, a StorageError that the state cannot be read or
written, for each of these functions.
"""

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
    """Validate and promote what a run pushed, if promotion is automatic; return why it is not promoted, or "".

    A version that somebody rolled back or replaced by hand is not promoted again by a run.

    Raises:
        ServerError: it does not pass, or a target does not take it.
        ModelError: its files are not those that were pushed.
    """
    if not targets.promotion.automatic:
        return "" if ModelRegistry(base_path).serving() == version else WAITING
    if _was_withdrawn(base_path, version):
        return WITHHELD
    promote(base_path, version, targets, reason=AUTOMATIC)
    return ""


def _was_withdrawn(base_path: str | Path, version: int) -> bool:
    registry = ModelRegistry(base_path)
    deployment = registry.deployment()
    if deployment is None:
        return False
    if deployment.status(version) in (ROLLED_BACK, REPLACED):
        return True
    record = registry.push_record(version) or {}
    withdrawn = [v for v, status in deployment.statuses.items() if status == ROLLED_BACK]
    # The same model under another number, since the files of its first push were lost.
    return any((registry.push_record(v) or {}).get("fingerprint", "") == record.get("fingerprint") for v in withdrawn)


def promote(
    base_path: str | Path, version: int, targets: RolloutTargets, label: str = STABLE, reason: str = ""
) -> Change | None:
    """Validate a version unless that was done, promote it, and roll it out.

    Returns:
        The change; None if it has the label already, in which case it is rolled out again.

    Raises:
        ServerError: it does not pass, or a target does not take it.
        ModelError: there is no such version, or its files are not those that were pushed.
    """
    registry = ModelRegistry(base_path)
    registry.require_sound(version)
    registry.begin()
    deployment = registry.deployment()
    if deployment is not None and deployment.status(version) in (PUSHED, REFUSED):
        try:
            result = "validation is switched off"
            if targets.promotion.validation.enabled:
                result = validation.validate(base_path, version, targets.promotion.validation).in_words()
        except ServerError as error:
            registry.set_validated(version, passed=False, reason=str(error))
            raise
        registry.set_validated(version, passed=True, reason=result)
    change = registry.promote(version, label, reason)
    roll_out(base_path, targets)
    return change


def rollback(
    base_path: str | Path, targets: RolloutTargets, to: int | None = None, label: str = STABLE, reason: str = ""
) -> Change:
    """Give a label back to a version that had it before, and roll that out. Nothing is loaded for it here.

    Raises:
        ServerError: a target does not take it.
        ModelError: nothing had the label before, or that version is gone or damaged.
    """
    change = ModelRegistry(base_path).rollback(to, label, reason)
    roll_out(base_path, targets)
    return change
