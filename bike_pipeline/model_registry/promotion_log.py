"""Which version of a model is promoted, and every change of it: deployment.json and deployment.jsonl in the base path.

A version is pushed, then validated or refused, then promoted, and in the end replaced or rolled back. The label
`stable` names the version that serves; other labels, such as `canary`, may name others beside it.

deployment.json is the truth. Each change replaces it whole, under a lock, together with a copy of the change; then the
copy is added to deployment.jsonl, which only ever grows. A process that dies between the two leaves a copy that the
next change adds first. If deployment.json is lost, the log restores it.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
from dataclasses import asdict
from datetime import UTC, datetime

from bike_pipeline.errors import StorageError
from bike_pipeline.model_registry.deployment import STABLE, Change, Deployment
from bike_pipeline.storage.files import Files

STATE_FILE, AUDIT_FILE = "deployment.json", "deployment.jsonl"
FORMAT = 1
_KEYS = ("format", "labels", "versions", "previous", "change")


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
        if found["format"] != FORMAT:
            raise StorageError(
                f"it has format {found['format']}; this release reads format {FORMAT}",
                where=files.uri(STATE_FILE),
                fix="use the release that wrote it, or a later one",
            )
        return Deployment(
            labels={str(label): int(version) for label, version in found["labels"].items()},
            statuses={int(version): str(entry["phase"]) for version, entry in found["versions"].items()},
            previous={str(label): tuple(map(int, earlier)) for label, earlier in found["previous"].items()},
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

    def __init__(self, files: Files, newest: int | None) -> None:
        """Read the state, and begin it if there is none: the newest version serves so far."""
        self._files = files
        found = read(files)
        if found is not None and found.change is not None:
            _add(files, found.change)
        self.state = found or Deployment()
        if found is None:
            self.record("begin", STABLE, None, newest, "promotions are recorded from now on")

    def record(self, action: str, label: str, before: int | None, version: int | None, reason: str) -> Change:
        """Make a change; see `Change`."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        change = Change(self.state.revision + 1, now, _who(), action, label, before, version, reason)
        self.state = self.state.after(change)
        self._files.replace(STATE_FILE, _content(self.state, change))
        _add(self._files, change)
        return change


def _content(state: Deployment, change: Change) -> bytes:
    found = {
        **state.more,
        "format": FORMAT,
        "labels": dict(state.labels),
        # Earlier releases called a status a phase.
        "versions": {str(version): {"phase": status} for version, status in state.statuses.items()},
        "previous": {label: list(versions) for label, versions in state.previous.items()},
        "change": asdict(change),
    }
    return (json.dumps(found, indent=2, sort_keys=True) + "\n").encode()


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
    files.append(AUDIT_FILE, ended + json.dumps(asdict(change), sort_keys=True).encode() + b"\n")


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # A container may run a user that has no name.
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
