"""Which version of a model is promoted, and every change of it: deployment.json and deployment.jsonl in the base path.

A pushed version goes through phases: pushed, validated (or refused), promoted, and in the end replaced or rolled back.
The label `stable` names the promoted version; other labels, such as `canary`, may name others beside it.

deployment.json is the truth. Each change replaces it whole, under a lock, together with a note of the change; then the
note is added to deployment.jsonl, which only ever grows. A process that dies between the two leaves a note that the
next change brings up to date. Where deployment.json is lost, the log gives it again.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from bike_pipeline.errors import ModelError, StorageError
from bike_pipeline.model_registry import layout, verification, version_folders
from bike_pipeline.model_registry.phases import PROMOTABLE, PROMOTED, STABLE, Change, Deployment
from bike_pipeline.model_registry.promotion_log_files import LocalStateFiles, StateFiles

STATE_FILE, AUDIT_FILE = "deployment.json", "deployment.jsonl"
FORMAT = 1


def files_of(base_path: str | Path) -> StateFiles:
    """Return where the state of the model at a base path is kept."""
    if version_folders.is_remote(base_path):
        from bike_pipeline.model_registry.remote_models import RemoteStateFiles

        return RemoteStateFiles(str(base_path))
    return LocalStateFiles(Path(base_path))


def read(base_path: str | Path) -> Deployment | None:
    """Return what is promoted; None where nobody ever recorded that, so that the newest version serves.

    Raises:
        StorageError: the file is damaged or cannot be read.
    """
    return _read(files_of(base_path))


def _read(files: StateFiles) -> Deployment | None:
    content = files.read(STATE_FILE)
    if content is None:
        changes = _logged(files)
        return _replayed(changes) if changes else None
    try:
        found = json.loads(content)
        if found["format"] != FORMAT:
            raise StorageError(
                f"it has format {found['format']}; this release reads format {FORMAT}",
                where=files.place(STATE_FILE),
                fix="use the release that wrote it, or a later one",
            )
        return Deployment(
            labels={str(label): int(version) for label, version in found["labels"].items()},
            phases={int(version): str(entry["phase"]) for version, entry in found["versions"].items()},
            previous={str(label): tuple(map(int, held)) for label, held in found["previous"].items()},
            change=Change(**found["change"]),
            more={k: v for k, v in found.items() if k not in _KEYS},
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise StorageError(
            "what is promoted cannot be read: the file is damaged",
            where=files.place(STATE_FILE),
            fix=f"move it away; the next call makes it again from {AUDIT_FILE}",
        ) from None


_KEYS = ("format", "labels", "versions", "previous", "change")


def _content(state: Deployment) -> bytes:
    assert state.change is not None
    found = {
        **state.more,
        "format": FORMAT,
        "labels": dict(state.labels),
        "versions": {str(version): {"phase": phase} for version, phase in state.phases.items()},
        "previous": {label: list(versions) for label, versions in state.previous.items()},
        "change": asdict(state.change),
    }
    return (json.dumps(found, indent=2, sort_keys=True) + "\n").encode()


def _logged(files: StateFiles) -> list[Change]:
    """Return the changes in the log; a line that a crash cut off is not one."""
    changes = []
    for line in (files.read(AUDIT_FILE) or b"").splitlines():
        try:
            changes.append(Change(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return changes


def _replayed(changes: Iterable[Change]) -> Deployment:
    state = Deployment()
    for change in changes:
        state = state.after(change)
    return state


def _note(files: StateFiles, change: Change, logged: Iterable[Change]) -> None:
    if any(entry.revision == change.revision for entry in logged):
        return
    content = files.read(AUDIT_FILE) or b""
    # Whatever a crash cut off ends here, so that the next line is whole.
    ended = b"" if not content or content.endswith(b"\n") else b"\n"
    files.append(AUDIT_FILE, ended + json.dumps(asdict(change), sort_keys=True).encode() + b"\n")


def history(base_path: str | Path) -> list[Change]:
    """Return every change, oldest first; what can be read of the log even where deployment.json cannot.

    Raises:
        StorageError: the log cannot be read.
    """
    files = files_of(base_path)
    changes = {change.revision: change for change in _logged(files)}
    try:
        state = _read(files)
    except StorageError:
        state = None
    if state is not None and state.change is not None:
        changes.setdefault(state.revision, state.change)
    return [changes[revision] for revision in sorted(changes)]


def promoted_version(base_path: str | Path) -> int | None:
    """Return the version that serves: the promoted one, or the newest where nobody ever recorded a promotion.

    Returns:
        None where nothing is pushed or, since promotions are recorded, nothing is promoted.

    Raises:
        StorageError: the state cannot be read.
    """
    state = read(base_path)
    if state is None:
        return max(version_folders.versions(base_path), default=None)
    return state.labels.get(STABLE)


def labels(base_path: str | Path) -> dict[str, int]:
    """Return the version of every label; none where nobody ever recorded a promotion.

    Raises:
        StorageError: the state cannot be read.
    """
    state = read(base_path)
    return dict(state.labels) if state else {}


class _Writer:
    """Changes the state; made inside of the lock."""

    def __init__(self, base_path: str | Path, files: StateFiles) -> None:
        self.base_path, self.files = base_path, files
        found = _read(files)
        logged = _logged(files)
        if found is not None and found.change is not None:
            _note(files, found.change, logged)
        self.state = Deployment() if found is None else found
        if found is None:
            newest = max(version_folders.versions(base_path), default=None)
            self.change("begin", STABLE, None, newest, "promotions are recorded from now on")

    def change(self, action: str, label: str, before: int | None, version: int | None, reason: str) -> Change:
        change = Change(
            revision=self.state.revision + 1,
            at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            who=_who(),
            action=action,
            label=label,
            from_version=before,
            to_version=version,
            reason=reason,
        )
        self.state = self.state.after(change)
        self.files.replace(STATE_FILE, _content(self.state))
        _note(self.files, change, ())
        return change


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # A container may run a user that has no name.
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def begin(base_path: str | Path) -> None:
    """Record what serves now, before the first version is pushed that is not to serve at once.

    Raises:
        BusyError: another process is changing it.
        StorageError: the state cannot be read or written.
    """
    files = files_of(base_path)
    if files.read(STATE_FILE) is None:
        with files.lock():
            _Writer(base_path, files)


def set_validated(base_path: str | Path, version: int, passed: bool, reason: str) -> None:
    """Record that a version was validated, or refused; a version that serves is left as it is.

    Raises:
        ModelError: there is no such version.
        BusyError: another process is changing it.
        StorageError: the state cannot be read or written.
    """
    files = files_of(base_path)
    with files.lock():
        writer = _Writer(base_path, files)
        _check_there(base_path, version)
        if writer.state.phase(version) != PROMOTED:
            writer.change("validate" if passed else "refuse", "", None, version, reason)


def promote(base_path: str | Path, version: int, label: str = STABLE, reason: str = "") -> Change | None:
    """Give a label to a validated version.

    Returns:
        The change; None where the version has the label already.

    Raises:
        ModelError: there is no such version, its files are not those that were pushed, or it is not validated.
        BusyError: another process is changing it.
        StorageError: the state cannot be read or written.
    """
    files = files_of(base_path)
    with files.lock():
        writer = _Writer(base_path, files)
        state = writer.state
        check_sound(base_path, version)
        if state.labels.get(label) == version:
            return None
        if state.phase(version) not in PROMOTABLE:
            raise ModelError(
                f"version {version} is {state.phase(version)}, not validated",
                where=str(base_path),
                fix=f"`bike-pipeline promote {version}` validates it first",
            )
        return writer.change("promote", label, state.labels.get(label), version, reason)


def rollback(base_path: str | Path, to: int | None = None, label: str = STABLE, reason: str = "") -> Change:
    """Give a label back to a version that had it before.

    Args:
        base_path: the model's base path.
        to: that version; None for the one before, passing over what is gone.
        label: the label.
        reason: why.

    Raises:
        ModelError: nothing had it before, or that version is gone or damaged.
        BusyError: another process is changing it.
        StorageError: the state cannot be read or written.
    """
    files = files_of(base_path)
    with files.lock():
        writer = _Writer(base_path, files)
        now, held = writer.state.labels.get(label), writer.state.previous.get(label, ())
        if to is None:
            present = set(version_folders.versions(base_path))
            to = next((version for version in reversed(held) if version in present and version != now), None)
        if to is None or now is None:
            raise ModelError(
                f"no version had the label {label} before, so there is nothing to go back to",
                where=str(base_path),
                fix="name one that was pushed: `bike-pipeline promote VERSION`",
            )
        if to == now:
            raise ModelError(f"version {to} has the label {label} now", where=str(base_path), fix="name an earlier one")
        check_sound(base_path, to)
        if writer.state.phase(to) not in PROMOTABLE:
            raise ModelError(
                f"version {to} was never promoted", where=str(base_path), fix=f"`bike-pipeline promote {to}` does that"
            )
        return writer.change("rollback", label, now, to, reason)


def _check_there(base_path: str | Path, version: int) -> None:
    present = version_folders.versions(base_path)
    if version not in present:
        choice = f"choose one of {', '.join(map(str, present[-10:]))}" if present else "run the pipeline first"
        raise ModelError(f"version {version} is not there", where=str(base_path), fix=choice)


def check_sound(base_path: str | Path, version: int) -> None:
    """Stop where a version is not there, its files are not those that were pushed, or a required proof is absent.

    Raises:
        ModelError: that is so.
        ConfigurationError: a key that is to be believed cannot be read.
        StorageError: it cannot be read.
    """
    _check_there(base_path, version)
    if version_folders.push_record(base_path, version) is None:
        wrong = f"the files are not those that were pushed: {layout.PUSH_FILE} is gone"
    else:
        wrong = verification.verify(version_folders.local_folder(base_path, version, fresh=True)).problem
    if wrong:
        raise ModelError(
            f"version {version} may not serve: {wrong}",
            where=version_folders.at(base_path, version),
            fix=f"choose another version; `bike-pipeline verify {version}` tells all that is wrong",
        )
