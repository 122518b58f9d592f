"""A model's base path on object storage (s3://, gs://), where there is no rename: the order of writing makes a version.

A version is written file by file and its `saved_model.pb` last. TF Serving loads a version whose saved_model.pb it can
read, and every reader here takes a version without one, or without its push record, as absent. So neither ever sees
half a version. A writer that is killed leaves files without a saved_model.pb, which the next push clears away, and a
marker that keeps others out for half an hour (see `data.remote_files`).

What is read is fetched into a local folder whose name is the version's fingerprint, and checked against it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bike_pipeline.errors import StorageError
from bike_pipeline.storage.file_systems import open_file_system
from bike_pipeline.storage.remote_files import RemoteFiles

# The file that makes a version: written last, so that everything else is there when it appears.
COMMIT_FILE = "saved_model.pb"
RECORD_FILE = "push.json"
CACHE_VARIABLE = "BIKE_PIPELINE_CACHE"


class RemoteModels(RemoteFiles):
    """A model's base path on object storage."""

    def __init__(self, base_path: str) -> None:
        """Use the address of a model's base path.

        Raises:
            MissingExtraError: the package for this kind of address is not installed.
            DataError: nothing reads this kind of address.
        """
        super().__init__(*open_file_system(base_path))
        self.base_path = base_path.rstrip("/")

    def _listed(self) -> dict[int, set[str]]:
        """Return the names of all files of each version folder, relative to it, finished or not."""
        with self._told("list", ""):
            self._fs.invalidate_cache()
            try:
                found = self._fs.find(self._root)
            except FileNotFoundError:
                return {}
        listed: dict[int, set[str]] = {}
        for path in found:
            number, slash, name = str(path)[len(self._root) :].lstrip("/").partition("/")
            if slash and number.isascii() and number.isdigit():
                listed.setdefault(int(number), set()).add(name)
        return listed

    def versions(self) -> list[int]:
        """Return the versions that are complete, ascending."""
        return sorted(v for v, names in self._listed().items() if {COMMIT_FILE, RECORD_FILE} <= names)

    def contents(self, version: int) -> dict[str, bytes]:
        """Return every file of a version by its name relative to the version's folder; none where it is not there."""
        root = self._at(str(version))
        with self._told("read", str(version)):
            self._fs.invalidate_cache()
            try:
                paths = [str(path) for path in self._fs.find(root)]
                found: dict[str, bytes] = self._fs.cat(paths) if paths else {}
            except FileNotFoundError:
                return {}
        return {str(path)[len(root) :].lstrip("/"): bytes(content) for path, content in found.items()}

    def add(self, version: int, folder: Path) -> None:
        """Upload a folder as a version, and clear away what killed uploads left.

        Raises:
            BusyError: another process is pushing, or was killed less than half an hour ago.
            StorageError: the version is there, or the storage cannot be written.
        """
        with self.lock():
            for number, names in self._listed().items():
                if COMMIT_FILE not in names:
                    self._remove(str(number))
                elif number == version:
                    raise StorageError(
                        "this version is there already", where=self.uri(str(version)), fix="push under a higher version"
                    )
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            for path in files:
                name = path.relative_to(folder).as_posix()
                if name != COMMIT_FILE:
                    self._put(f"{version}/{name}", path.read_bytes())
            self._check_marker()
            self._put(f"{version}/{COMMIT_FILE}", (folder / COMMIT_FILE).read_bytes())

    def _put(self, path: str, content: bytes) -> None:
        with self._told("write", path):
            self._fs.pipe_file(self._at(path), content)


class RemoteStateFiles(RemoteModels):
    """The files of a deployment's state on object storage, where replacing a file is one step."""

    def place(self, name: str) -> str:
        """Return the address of a file."""
        return self.uri(name)

    def replace(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all."""
        self._check_marker()
        self._put(name, content)

    def append(self, name: str, content: bytes) -> None:
        """Write a file anew with more at its end; nothing can be added to an object."""
        self._check_marker()
        self._put(name, (self.read(name) or b"") + content)


def split(folder: str) -> tuple[str, int]:
    """Return the base path and the version of a version's address.

    Raises:
        ValueError: it is no version's address.
    """
    base_path, _, version = folder.rstrip("/").rpartition("/")
    return base_path, int(version)


def _write(contents: dict[str, bytes], folder: Path) -> None:
    for name, content in contents.items():
        path = folder / name
        if folder.resolve() not in path.resolve().parents:
            raise StorageError("a file's name leads out of its folder", where=name, fix="push again")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@contextmanager
def fetched(folder: str) -> Iterator[Path]:
    """Yield a temporary local folder with the very files of a version, as they are now; empty where it is not there."""
    base_path, version = split(folder)
    with tempfile.TemporaryDirectory(prefix="bike-model-") as scratch:
        local = Path(scratch) / str(version)
        local.mkdir()
        _write(RemoteModels(base_path).contents(version), local)
        yield local


def cache_folder() -> Path:
    """Return where fetched versions are kept: $BIKE_PIPELINE_CACHE, or the user's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "bike-pipeline" / "models"


def local_copy(folder: str, fresh: bool = False) -> Path:
    """Return a local folder with a version's files, fetched where that was not done.

    Args:
        folder: the version's address.
        fresh: hold what was fetched before against what is there now, byte for byte.

    Raises:
        StorageError: the version is not there, or the cache cannot be written.
    """
    base_path, version = split(folder)
    models = RemoteModels(base_path)
    record = models.read(f"{version}/{RECORD_FILE}")
    if record is None:
        raise StorageError("this version is not there", where=folder, fix="`bike-pipeline models` lists what is pushed")
    from bike_pipeline.model_registry.layout import is_intact

    try:
        noted = json.loads(record)
        expected, exports = str(noted.get("fingerprint", "")), noted.get("exports_fingerprint")
    except (ValueError, AttributeError):
        expected, exports = "", None
    key = hashlib.sha256(f"{base_path}\0{expected}\0".encode() + record).hexdigest()[:32]
    target = cache_folder() / key / str(version)
    # The exports are files that answer, too.
    if not fresh and is_intact(target, expected, exports):
        return target
    contents = models.contents(version)
    if _holds(target, contents):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".incoming-", dir=target.parent) as incoming:
            new = Path(incoming) / "new"
            new.mkdir()
            _write(contents, new)
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


def _holds(folder: Path, contents: dict[str, bytes]) -> bool:
    if not folder.is_dir():
        return False
    there = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return there.keys() == contents.keys() and all(path.read_bytes() == contents[n] for n, path in there.items())


def upload(base_path: str, version: int, model: Path, fill: Callable[[Path], Any]) -> str:
    """Gather a version in a temporary local folder and upload it; return its address.

    Args:
        base_path: the model's base path.
        version: the new version.
        model: folder of the SavedModel.
        fill: writes the rest into the gathered folder.

    Raises:
        BusyError: another process is pushing, or was killed less than half an hour ago.
        StorageError: the version is there, or the storage cannot be written.
    """
    models = RemoteModels(base_path)
    with tempfile.TemporaryDirectory(prefix="bike-push-") as scratch:
        gathered = Path(scratch) / str(version)
        shutil.copytree(model, gathered)
        fill(gathered)
        models.add(version, gathered)
    return f"{models.base_path}/{version}"
