"""Which version of a model is promoted, and every change of it: deployment.json and deployment.jsonl in the base path.

A version is pushed, then validated or refused, then promoted, and in the end replaced or rolled back. The label
`stable` names the version that serves; other labels, such as `canary`, may name others beside it. A rollout gives such
a label a share of the requests, step by step, until its version becomes `stable` or loses the label.

deployment.json is the truth. Each change replaces it whole, under a lock, together with a copy of the change; then the
copy is added to deployment.jsonl, which only ever grows. A process that dies between the two leaves a copy that the
next change adds first. If deployment.json is lost, the log restores it.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from bike_pipeline.errors import BusyError, StorageError
from bike_pipeline.storage.files import Files

STATE_FILE, AUDIT_FILE = "deployment.json", "deployment.jsonl"
FORMAT, SHARES_FORMAT = 1, 2
_KEYS = ("format", "labels", "versions", "previous", "shares", "change")
STABLE = "stable"
PUSHED, VALIDATED, REFUSED = "pushed", "validated", "refused"
PROMOTED, REPLACED, ROLLED_BACK = "promoted", "replaced", "rolled back"
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
        action: "begin", "validate", "refuse", "promote", "rollback", "shift" (a label gets a share of the requests) or
            "abort" (a label and its share are taken away).
        label: the label it is about; "" if it is about none.
        from_version: what had the label before; None if nothing had.
        to_version: the version that it is about; None if nothing was pushed yet.
        share: percent of the requests that the label gets from now on; None where the change gives none.
    """

    revision: int
    at: str
    who: str
    action: str
    label: str
    from_version: int | None
    to_version: int | None
    reason: str
    share: float | None = None


@dataclass(frozen=True)
class Deployment:
    """What is promoted: the version of each label, and the status of each version that is more than pushed.

    Attributes:
        previous: by label the versions that had it before, the latest last.
        shares: by label other than `stable`, percent of the requests that it gets: answered by its version, or for a
            shadow copied to it; the rest is the stable version's.
        change: the last change.
        more: what another release wrote into the file and this one only keeps.
    """

    labels: Mapping[str, int] = field(default_factory=dict)
    statuses: Mapping[int, str] = field(default_factory=dict)
    previous: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
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
        shares = dict(self.shares)
        version, label = change.to_version, change.label
        if version is not None:
            if change.action in ("validate", "refuse"):
                statuses[version] = VALIDATED if change.action == "validate" else REFUSED
            elif change.action == "abort":
                labels.pop(label, None)
                shares.pop(label, None)
                statuses[version] = ROLLED_BACK
            elif change.action == "shift" and change.share is not None:
                # A version has one share: a shadow that becomes a canary is not copied to any more.
                for other in [name for name in shares if labels.get(name) == version]:
                    del labels[other], shares[other]
                labels[label], shares[label] = version, change.share
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
                    # What serves everybody has no share any more that a rollout gave it.
                    for other in [name for name in shares if labels.get(name) == version]:
                        del labels[other], shares[other]
        trimmed = {name: tuple(versions) for name, versions in previous.items()}
        return replace(self, labels=labels, statuses=statuses, previous=trimmed, shares=shares, change=change)


def read(files: Files) -> Deployment | None:
    """Return what is promoted; None if nobody ever recorded that, so that the newest version serves."""
    content = files.read(STATE_FILE)
    if content is None:
        changes = _logged(files)
        state = Deployment()
        for change in changes:
            state = state.after(change)
        return state if changes else None
    try:
        found = json.loads(content)
        if found["format"] not in (FORMAT, SHARES_FORMAT):
            raise StorageError(
                f"it has format {found['format']}; this release reads formats {FORMAT} and {SHARES_FORMAT}",
                where=files.uri(STATE_FILE),
                fix="use the release that wrote it, or a later one",
            )
        return Deployment(
            labels={str(label): int(version) for label, version in found["labels"].items()},
            statuses={int(version): str(entry["phase"]) for version, entry in found["versions"].items()},
            previous={str(label): tuple(map(int, earlier)) for label, earlier in found["previous"].items()},
            shares={str(label): float(share) for label, share in found.get("shares", {}).items()},
            change=Change(**found["change"]),
            more={k: v for k, v in found.items() if k not in _KEYS},
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise StorageError(
            "what is promoted cannot be read: the file is damaged",
            where=files.uri(STATE_FILE),
            fix=f"move it away; the next call makes it again from {AUDIT_FILE}",
        ) from None


def history(files: Files) -> list[Change]:
    """Return every change, oldest first; what can be read of the log even if deployment.json cannot."""
    changes = {change.revision: change for change in _logged(files)}
    try:
        state = read(files)
    except StorageError:
        state = None
    if state is not None and state.change is not None:
        changes.setdefault(state.revision, state.change)
    return [changes[revision] for revision in sorted(changes)]


class Changes:
    """Changes what is promoted; made while the lock of `files` is held."""

    def __init__(self, files: Files, newest: int | None, revision: int | None = None) -> None:
        """Read the state, and begin it if there is none: the newest version serves so far.

        With a `revision`, a state of another one is a BusyError: somebody has changed it meanwhile.
        """
        self._files = files
        found = read(files)
        if found is not None and found.change is not None:
            _add(files, found.change)
        self.state = found or Deployment()
        if revision not in (None, self.state.revision):
            raise BusyError(
                f"what is promoted is at revision {self.state.revision}, and no longer at {revision}",
                where=files.uri(STATE_FILE),
                fix="look at it again: somebody changed it meanwhile",
            )
        if found is None:
            self.record("begin", STABLE, None, newest, "promotions are recorded from now on")

    def record(
        self,
        action: str,
        label: str,
        before: int | None,
        version: int | None,
        reason: str,
        share: float | None = None,
    ) -> Change:
        """Make a change; see `Change`."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        change = Change(self.state.revision + 1, now, _who(), action, label, before, version, reason, share)
        self.state = self.state.after(change)
        content = {
            **self.state.more,
            # A release that knows no shares would send everybody to the stable version, and must not read it.
            "format": SHARES_FORMAT if self.state.shares or share is not None else FORMAT,
            "labels": dict(self.state.labels),
            # Earlier releases called a status a phase.
            "versions": {str(number): {"phase": status} for number, status in self.state.statuses.items()},
            "previous": {name: list(versions) for name, versions in self.state.previous.items()},
            **({"shares": dict(self.state.shares)} if self.state.shares else {}),
            "change": _entry(change),
        }
        self._files.replace(STATE_FILE, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())
        _add(self._files, change)
        return change


def _logged(files: Files) -> list[Change]:
    """Return the changes in the log; a line that a crash cut off is not one."""
    changes = []
    for line in (files.read(AUDIT_FILE) or b"").splitlines():
        try:
            changes.append(Change(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return changes


def _add(files: Files, change: Change) -> None:
    if any(entry.revision == change.revision for entry in _logged(files)):
        return
    content = files.read(AUDIT_FILE) or b""
    # Whatever a crash cut off ends here, so that the next line is whole.
    ended = b"" if not content or content.endswith(b"\n") else b"\n"
    files.append(AUDIT_FILE, ended + json.dumps(_entry(change), sort_keys=True).encode() + b"\n")


def _entry(change: Change) -> dict[str, Any]:
    """Return a change as it is written: without a share that it does not give, as earlier releases read it."""
    return {key: value for key, value in asdict(change).items() if key != "share" or value is not None}


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # A container may run a user that has no name.
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
