"""The pushed versions of one model, and which of them serves: the one place to ask, on a folder or object storage."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from bike_pipeline.errors import ModelError, StorageError
from bike_pipeline.model_registry import deployment, layout, verification
from bike_pipeline.model_registry.deployment import PROMOTABLE, PROMOTED, STABLE, Change, Changes, Deployment
from bike_pipeline.model_registry.verification import Soundness
from bike_pipeline.storage.files import Files, local_path, open_files

# Whoever changes what is promoted writes two small files; whoever pushes copies a model.
_LOCK_SECONDS = 30.0
# Where copies of versions on object storage are kept, by what they hold; else the user's cache folder.
CACHE_VARIABLE = "BIKE_PIPELINE_CACHE"


class ModelRegistry:
    """A model's base path, as TF Serving watches it: numeric version folders, complete or absent.

    On a local folder a version appears by a rename. Object storage has none: there `saved_model.pb` is uploaded last,
    and a version without it, or without its push record, is absent for every reader here and for TF Serving.

    Every method raises StorageError if the place cannot be read or written. Those that verify raise ConfigurationError
    if a trusted key cannot be read, or a signature is required and there is no key; those that change something raise
    BusyError while another process does.

    Attributes:
        base_path: local folder or address (s3://, gs://, …).
        local: the same as a local folder; None on object storage.

    With a `revision`, a change of any other one is a BusyError.
    """

    def __init__(
        self, base_path: str | Path, lock_seconds: float = _LOCK_SECONDS, *, revision: int | None = None
    ) -> None:
        self.base_path = str(base_path).rstrip("/")
        self.local = local_path(self.base_path)
        self._lock_seconds, self._revision = lock_seconds, revision

    @cached_property
    def _files(self) -> Files:
        return open_files(self.base_path, self._lock_seconds)

    @classmethod
    def of_version(cls, uri: str | Path) -> tuple[ModelRegistry, int]:
        """Return the registry and the version of a version's folder or address."""
        base_path, _, version = str(uri).rstrip("/").rpartition("/")
        return cls(base_path), int(version)

    def uri(self, version: int) -> str:
        """Return the folder or the address of a version."""
        return f"{self.base_path}/{version}"

    def versions(self) -> list[int]:
        """Return the version numbers, ascending."""
        if self._files.at_once:
            return sorted(int(name) for name in self._files.folders() if _is_version(name))
        needed = {layout.MODEL_FILE, layout.PUSH_FILE}
        return sorted(version for version, names in self._uploaded().items() if needed <= names)

    def _uploaded(self) -> dict[int, set[str]]:
        """Return the files of each version's folder, whether its upload has ended or not."""
        found: dict[int, set[str]] = {}
        for path in self._files.files(deep=True):
            number, slash, name = path.partition("/")
            if slash and _is_version(number):
                found.setdefault(int(number), set()).add(name)
        return found

    def folder(self, version: int, *, fresh: bool = False) -> Path:
        """Return a local folder with a version's files: its own, or a cached copy of an address.

        A `fresh` copy is what is there now, byte for byte; else its fingerprint is enough.
        """
        return self.local / str(version) if self.local else _cached(self._files, version, fresh=fresh)

    def fingerprint(self, version: int) -> str:
        """Return the SHA-256 over names and contents of a version's model, without its exports and push files."""
        return layout.fingerprint(self.folder(version, fresh=True))

    def push_record(self, version: int) -> dict[str, Any] | None:
        """Return what was recorded at a version's push; None without such a record."""
        return layout.push_record(self._files, str(version))

    def add(
        self,
        model: str | Path,
        version: int,
        record: Mapping[str, Any],
        complete: Callable[[Path], None] | None = None,
    ) -> str:
        """Copy a SavedModel's folder to a new version, which a watching server sees whole or not; return its `uri`.

        `record` is the push record; `complete` writes what must appear with the rest, such as the signature, into the
        folder that is still aside.
        """

        def fill(folder: Path) -> None:
            shutil.copytree(model, folder, dirs_exist_ok=True)
            (folder / layout.PUSH_FILE).write_text(json.dumps(record, indent=2, sort_keys=True), encoding="utf-8")
            if complete:
                complete(folder)

        with self._files.lock():
            if version in self.versions():
                raise StorageError(
                    "this version is there already", where=self.uri(version), fix="push under a higher version"
                )
            if not self._files.at_once:
                for number, names in self._uploaded().items():
                    if layout.MODEL_FILE not in names:
                        self._files.remove(str(number))
            self._files.publish(str(version), fill, layout.MODEL_FILE)
        return self.uri(version)

    def signature_sha256(self, version: int) -> str:
        """Return the SHA-256 over what a version was signed with; absent ones count as empty."""
        digest = hashlib.sha256()
        for name in layout.SIGNED_FILES:
            digest.update(hashlib.sha256(self._files.read(f"{version}/{name}") or b"").digest())
        return digest.hexdigest()

    def verify(self, version: int) -> Soundness:
        """Check every byte of a version, its signature and its number against what was pushed."""
        return verification.verify(self.folder(version, fresh=True))

    def require_sound(self, version: int) -> None:
        """Raise ModelError for a version that is absent, changed, or lacks a proof that is required."""
        self._require(version)
        if self.push_record(version) is None:
            problem = f"the files are not those that were pushed: {layout.PUSH_FILE} is gone"
        else:
            problem = self.verify(version).problem
        if problem:
            raise ModelError(
                f"version {version} may not serve: {problem}",
                where=self.uri(version),
                fix=f"choose another version; `bike-pipeline verify {version}` tells all that is wrong",
            )

    def _require(self, version: int) -> None:
        present = self.versions()
        if version not in present:
            choice = f"choose one of {', '.join(map(str, present[-10:]))}" if present else "run the pipeline first"
            raise ModelError(f"version {version} is not there", where=self.base_path, fix=choice)

    def problem(self, version: int) -> str:
        """Return why a version cannot serve, "" if nothing speaks against it; nothing is downloaded for it."""
        try:
            if version not in self.versions():
                return "its folder is gone"
            if self.push_record(version) is None:
                return f"its {layout.PUSH_FILE} is gone"
            return self.verify(version).problem if self.local else ""
        except (StorageError, OSError) as error:
            return f"it cannot be read ({error})"

    def deployment(self) -> Deployment | None:
        """Return labels and statuses; None if no promotion was ever recorded, so that the newest version serves."""
        return deployment.read(self._files)

    def serving(self) -> int | None:
        """Return the version that serves: the promoted one, or the newest if no promotion was ever recorded."""
        state = self.deployment()
        return max(self.versions(), default=None) if state is None else state.labels.get(STABLE)

    def history(self) -> list[Change]:
        """Return every change of what is promoted, oldest first, as far as the log can be read."""
        return deployment.history(self._files)

    @contextmanager
    def _changes(self) -> Iterator[Changes]:
        with self._files.lock():
            yield Changes(self._files, max(self.versions(), default=None), self._revision)

    def begin(self) -> None:
        """Record what serves now, before the first push of a version that does not serve at once."""
        if self._files.read(deployment.STATE_FILE) is None:
            with self._changes():
                pass

    def set_validated(self, version: int, *, passed: bool, reason: str) -> None:
        """Record the outcome of a version's validation; a version that serves is left as it is."""
        with self._changes() as changes:
            self._require(version)
            if changes.state.status(version) != PROMOTED:
                changes.record("validate" if passed else "refuse", "", None, version, reason)

    def promote(self, version: int, label: str = STABLE, reason: str = "") -> Change | None:
        """Give a label to a validated version; None if it has it already, ModelError if it may not serve."""
        with self._changes() as changes:
            self.require_sound(version)
            state = changes.state
            if state.labels.get(label) == version:
                return None
            if state.status(version) not in PROMOTABLE:
                raise ModelError(
                    f"version {version} is {state.status(version)}, not validated",
                    where=self.base_path,
                    fix=f"`bike-pipeline promote {version}` validates it first",
                )
            return changes.record("promote", label, state.labels.get(label), version, reason)

    def rollback(self, to: int | None = None, label: str = STABLE, reason: str = "") -> Change:
        """Give a label back to `to`, or the newest earlier version that is there; ModelError if that may not serve."""
        with self._changes() as changes:
            now, earlier = changes.state.labels.get(label), changes.state.previous.get(label, ())
            if to is None:
                present = set(self.versions())
                to = next((version for version in reversed(earlier) if version in present and version != now), None)
            if to is None or now is None:
                problem = f"no version had the label {label} before, so there is nothing to go back to"
                fix = "name one that was pushed: `bike-pipeline promote VERSION`"
            elif to == now:
                problem, fix = f"version {to} has the label {label} now", "name an earlier one"
            else:
                self.require_sound(to)
                if changes.state.status(to) in PROMOTABLE:
                    return changes.record("rollback", label, now, to, reason)
                problem, fix = f"version {to} was never promoted", f"`bike-pipeline promote {to}` does that"
            raise ModelError(problem, where=self.base_path, fix=fix)

    def shift(self, version: int, label: str, share: float, reason: str) -> Change | None:
        """Give a label's version a share of the requests; None if it has that share already.

        Args:
            version: a validated version that is not `stable`.
            label: `canary`, `challenger` or `shadow`; `stable` has what is left, and no share of its own.
            share: percent of the requests, 0 to 100.
            reason: why.

        Raises:
            ModelError: the version may not serve, is `stable`, or another version has the label.
        """
        if label == STABLE or not 0 <= share <= 100:
            raise ValueError(f"{label}: {share}")
        with self._changes() as changes:
            state = changes.state
            holder = state.labels.get(label)
            if holder == version and state.shares.get(label) == share:
                return None
            self.require_sound(version)
            problem = fix = ""
            if state.labels.get(STABLE) == version:
                problem, fix = f"version {version} is stable: it answers already", "name another version"
            elif state.status(version) not in PROMOTABLE:
                problem = f"version {version} is {state.status(version)}, not validated"
                fix = f"`bike-pipeline rollout start {version}` validates it first"
            elif holder is not None and holder != version:
                problem = f"version {holder} has the label {label}"
                fix = "end its rollout first: `bike-pipeline rollout abort --reason …`"
            if problem:
                raise ModelError(problem, where=self.base_path, fix=fix)
            return changes.record("shift", label, holder, version, reason, float(share))

    def abort(self, label: str, reason: str) -> Change | None:
        """Take a label and its share away from its version; None if nothing has the label."""
        with self._changes() as changes:
            holder = changes.state.labels.get(label)
            return None if holder is None else changes.record("abort", label, holder, holder, reason)


def _is_version(name: str) -> bool:
    return name.isascii() and name.isdigit()


def is_intact(uri: str | Path, fingerprint: str, exports: str | None = None) -> bool:
    """Return whether a model's folder, or a version's address, holds the very bytes that `fingerprint` names.

    `exports` is the fingerprint of its exports: "" if there must be none, None if they do not matter.
    """
    folder = local_path(uri)
    if folder is None:
        registry, version = ModelRegistry.of_version(uri)
        if version not in registry.versions():
            return False
        folder = registry.folder(version, fresh=True)
    return (
        folder.is_dir()
        and layout.fingerprint(folder) == fingerprint
        and (exports is None or layout.exports_fingerprint(folder) == exports)
    )


def local_copy(uri: str | Path) -> Path:
    """Return a local folder with the files of a version's folder or address."""
    if folder := local_path(uri):
        return folder
    registry, version = ModelRegistry.of_version(uri)
    return registry.folder(version)


def _cached(files: Files, version: int, *, fresh: bool) -> Path:
    uri = files.uri(str(version))
    content = files.read(f"{version}/{layout.PUSH_FILE}")
    if content is None:
        raise StorageError("this version is not there", where=uri, fix="`bike-pipeline models` lists what is pushed")
    try:
        record = json.loads(content)
    except ValueError:
        record = {}
    record = record if isinstance(record, dict) else {}
    expected, exports = str(record.get("fingerprint", "")), record.get("exports_fingerprint")
    key = hashlib.sha256(f"{files.uri()}\0{expected}\0".encode() + content).hexdigest()[:32]
    named, home = os.environ.get(CACHE_VARIABLE), os.environ.get("XDG_CACHE_HOME")
    cache = Path(named) if named else Path(home or Path.home() / ".cache") / "bike-pipeline" / "models"
    target = cache / key / str(version)
    # The exports are files that answer, too.
    if not fresh and is_intact(target, expected, exports):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".incoming-", dir=target.parent) as incoming:
            new = Path(incoming) / "new"
            new.mkdir()
            files.download(str(version), new)
            if _contents(new) == _contents(target):
                return target
            if target.exists():
                # A folder cannot replace one that is not empty in one step.
                target.rename(Path(incoming) / "old")
            try:
                new.rename(target)
            except OSError:
                # Another process has put the same version there meanwhile.
                if not target.exists():
                    raise
    except OSError as error:
        raise StorageError(
            f"cannot keep a local copy of the model ({error.strerror or error})",
            where=str(target.parent),
            fix=f"free space, or name another folder in {CACHE_VARIABLE}",
        ) from None
    return target


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
