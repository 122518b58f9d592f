"""What is promoted: the label and the status of each pushed version, and what each change makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

STABLE = "stable"
PUSHED, VALIDATED, REFUSED, PROMOTED, REPLACED, ROLLED_BACK = (
    "pushed",
    "validated",
    "refused",
    "promoted",
    "replaced",
    "rolled back",
)
# A version in one of these has been validated, or has served before there were statuses.
PROMOTABLE = (VALIDATED, PROMOTED, REPLACED, ROLLED_BACK)
# Earlier versions of a label that a rollback can go back to.
_MOST_PREVIOUS = 50


@dataclass(frozen=True)
class Change:
    """One change of a deployment.

    Attributes:
        revision: its number, from 1 on.
        at: when, UTC, ISO 8601.
        who: user and machine.
        action: "begin", "validate", "refuse", "promote" or "rollback".
        label: the label it is about; "" if it is about none.
        from_version: what had the label before; None if nothing had.
        to_version: the version that it is about; None if nothing was pushed yet.
        reason: why, in the words of whoever did it.
    """

    revision: int
    at: str
    who: str
    action: str
    label: str
    from_version: int | None
    to_version: int | None
    reason: str


@dataclass(frozen=True)
class Deployment:
    """What is promoted.

    Attributes:
        labels: version by label.
        statuses: status by version; a version that is not there is pushed and no more.
        previous: by label the versions that had it before, the latest last.
        change: the last change.
        more: what another release wrote into the file and this one only keeps.
    """

    labels: Mapping[str, int] = field(default_factory=dict)
    statuses: Mapping[int, str] = field(default_factory=dict)
    previous: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    change: Change | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def revision(self) -> int:
        """Number of the last change; 0 before the first."""
        return self.change.revision if self.change else 0

    def status(self, version: int) -> str:
        """Return a version's status."""
        return self.statuses.get(version, PUSHED)

    def after(self, change: Change) -> Deployment:
        """Return what a change makes of it."""
        labels, statuses = dict(self.labels), dict(self.statuses)
        previous = {label: list(versions) for label, versions in self.previous.items()}
        version, label = change.to_version, change.label
        if version is not None:
            if change.action in ("validate", "refuse"):
                statuses[version] = VALIDATED if change.action == "validate" else REFUSED
            elif label:
                before = labels.get(label)
                labels[label] = version
                earlier = previous.setdefault(label, [])
                if change.action == "rollback":
                    del earlier[earlier.index(version) if version in earlier else len(earlier) :]
                elif (old := before if before is not None else change.from_version) is not None:
                    earlier.append(old)
                    del earlier[:-_MOST_PREVIOUS]
                if label == STABLE:
                    if change.from_version is not None:
                        statuses[change.from_version] = ROLLED_BACK if change.action == "rollback" else REPLACED
                    statuses[version] = PROMOTED
        trimmed = {name: tuple(versions) for name, versions in previous.items()}
        return replace(self, labels=labels, statuses=statuses, previous=trimmed, change=change)
