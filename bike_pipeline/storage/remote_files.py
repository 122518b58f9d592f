"""Files below a folder (prefix) of object storage: s3://, gs://, abfs://, hdfs:// and all else that fsspec reads.

Object storage has no rename of folders and no lock that dies with its holder, so this is weaker than a local folder:

- A folder is written file by file, and last the file that makes it count (a span version's manifest, a model's
  saved_model.pb): without that it does not exist for the span store, the registry or TensorFlow Serving. A reader that
  globs the folders itself can see the files of an unfinished one.
- Writers exclude each other with a marker file that is created only if there is none. S3, GCS and local folders do
  that atomically; on a storage whose fsspec driver only looks first and then writes, two writers that start within
  the same instant can both pass. Each therefore reads its marker again before the last file is written.
- A writer that is killed leaves its marker. After `MARKER_LIFETIME` another writer takes it over; until then it says
  who left it and how to remove it. A single write that takes longer than that is refused at its end if it was
  overtaken.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from bike_pipeline.errors import BikePipelineError, BusyError, DataError, MissingExtraError, StorageError
from bike_pipeline.storage.atomic_files import one_error, write_tree

MARKER = ".writing.json"
MARKER_LIFETIME = timedelta(minutes=30)
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}


def open_file_system(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of `url` and the path in it."""
    import fsspec

    where = without_credentials(url)
    scheme = url.partition("://")[0]
    try:
        file_system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        package = _PACKAGES.get(scheme, "the package that fsspec names")
        raise MissingExtraError(
            f"reading {scheme}:// needs {package}, which is not installed ({error})",
            where=where,
            fix=f"install it in the project's environment: `pip install {_PACKAGES.get(scheme, scheme)}`",
        ) from error
    except ValueError as error:
        raise DataError(
            f"nothing reads addresses of this kind ({error})", where=where, fix="check the address"
        ) from error
    return file_system, str(path)


def without_credentials(url: str) -> str:
    """Return `url` without user, password, query string and fragment: each of them may hold a secret."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


class RemoteFiles:
    """A folder (prefix) of any fsspec file system. See `files.LocalFiles`."""

    at_once = False

    def __init__(self, file_system: Any, root: str) -> None:
        """Use the folder `root` of `file_system` (an fsspec AbstractFileSystem)."""
        self._fs = file_system
        self._root = root.rstrip("/")
        self._token: str | None = None

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root

    def uri(self, path: str = "") -> str:
        return str(self._fs.unstrip_protocol(self._at(path)))

    @contextmanager
    def _one_error(self, doing: str, path: str) -> Iterator[None]:
        try:
            yield
        except (BikePipelineError, FileNotFoundError, FileExistsError):
            raise
        except Exception as error:  # each storage raises its own kinds
            reason = (str(error) or type(error).__name__).splitlines()[0]
            fix = "check the address, the credentials and the network"
            raise StorageError(f"cannot {doing} it: {reason}", where=self.uri(path), fix=fix) from error

    def folders(self, path: str = "") -> list[str]:
        return self._names(path, "directory")

    def files(self, path: str = "", *, deep: bool = False) -> list[str]:
        if not deep:
            return self._names(path, "file")
        return [str(name)[len(self._at(path)) :].lstrip("/") for name in self._listed(path, self._fs.find)]

    def _names(self, path: str, kind: str) -> list[str]:
        entries = self._listed(path, self._fs.ls, detail=True)
        return [str(e["name"]).rstrip("/").rpartition("/")[2] for e in entries if e["type"] == kind]

    def _listed(self, path: str, how: Callable[..., Any], **options: Any) -> list[Any]:
        with self._one_error("list", path), suppress(FileNotFoundError):
            # Listings are cached by fsspec; another process may have written since.
            self._fs.invalidate_cache()
            return list(how(self._at(path), **options))
        return []

    def read(self, path: str) -> bytes | None:
        with self._one_error("read", path), suppress(FileNotFoundError):
            return bytes(self._fs.cat_file(self._at(path)))
        return None

    def download(self, path: str, target: Path) -> None:
        names = self.files(path, deep=True)
        with self._one_error("read", path):
            found = self._fs.cat([self._at(f"{path}/{name}") for name in names]) if names else {}
            root = self._at(path)
            write_tree(target, {str(at)[len(root) :].lstrip("/"): bytes(content) for at, content in found.items()})

    @contextmanager
    def lock(self) -> Iterator[None]:
        token, since = secrets.token_hex(16), datetime.now(UTC).isoformat()
        own = {"token": token, "host": socket.gethostname(), "pid": os.getpid(), "since": since}
        for overtaken in (False, True):
            try:
                self._create(MARKER, json.dumps(own).encode())
                break
            except FileExistsError:
                marker = self._marker()
                if overtaken or (marker is not None and not _is_stale(marker)):
                    raise _busy(marker, self.uri(MARKER)) from None
                self.remove(MARKER)
        self._token = token
        try:
            self._check_marker()
        except StorageError:
            # It was made by this process a moment ago; left behind it would keep everybody out.
            self.remove(MARKER)
            raise
        try:
            yield
        finally:
            self._drop_marker()

    def _create(self, path: str, content: bytes) -> None:
        from fsspec.implementations.local import LocalFileSystem

        with self._one_error("write", path):
            self._fs.makedirs(self._at(path).rpartition("/")[0], exist_ok=True)
            if isinstance(self._fs, LocalFileSystem):
                # Its pipe_file looks first and then writes; the mode x is one step.
                with self._fs.open(self._at(path), "xb") as file:
                    file.write(content)
            else:
                self._fs.pipe_file(self._at(path), content, mode="create")

    def remove(self, path: str) -> None:
        with self._one_error("remove", path), suppress(FileNotFoundError):
            self._fs.rm(self._at(path), recursive=True)

    def _marker(self) -> dict[str, Any] | None:
        """Return who writes here; empty if the marker is not whole, None if there is none."""
        content = self.read(MARKER)
        if content is None:
            return None
        try:
            marker = json.loads(content)
        except ValueError:
            marker = {}
        return marker if isinstance(marker, dict) else {}

    def _check_marker(self) -> None:
        marker = self._marker()
        if marker is None or marker.get("token") != self._token:
            self._token = None
            raise _busy(marker, self.uri(MARKER))

    def _drop_marker(self) -> None:
        if self._token is not None and (self._marker() or {}).get("token") == self._token:
            self.remove(MARKER)
        self._token = None

    def publish(self, folder: str, fill: Callable[[Path], None], commit: str) -> None:
        if self.read(f"{folder}/{commit}") is not None:
            raise StorageError("it is there already", where=self.uri(folder), fix="run it again")
        self.remove(folder)
        with tempfile.TemporaryDirectory(prefix="bike-writing-") as scratch:
            gathered = Path(scratch)
            with one_error("write", gathered):
                fill(gathered)
            for path in sorted(gathered.rglob("*")):
                name = path.relative_to(gathered).as_posix()
                if path.is_file() and name != commit:
                    self._put(f"{folder}/{name}", path.read_bytes())
            self._check_marker()
            try:
                self._create(f"{folder}/{commit}", (gathered / commit).read_bytes())
            except FileExistsError:
                raise StorageError("another writer made it first", where=self.uri(folder), fix="run it again") from None

    def replace(self, path: str, content: bytes) -> None:
        self._check_marker()
        self._put(path, content)

    def append(self, path: str, content: bytes) -> None:
        self._check_marker()
        self._put(path, (self.read(path) or b"") + content)

    def _put(self, path: str, content: bytes) -> None:
        with self._one_error("write", path):
            self._fs.makedirs(self._at(path).rpartition("/")[0], exist_ok=True)
            self._fs.pipe_file(self._at(path), content)


def _is_stale(marker: dict[str, Any]) -> bool:
    try:
        since = datetime.fromisoformat(str(marker.get("since")))
    except ValueError:
        # A marker that is not whole was being written by somebody who died, or is being written right now.
        return False
    return datetime.now(UTC) - since > MARKER_LIFETIME


def _busy(marker: dict[str, Any] | None, where: str) -> BusyError:
    who, since = "another process", ""
    if marker is not None:
        pid, host, at = (marker.get(name, "") for name in ("pid", "host", "since"))
        who, since = f"process {pid} on {host}", f" since {at}"
    fix = "wait for it and run this again; if that process is dead, remove this file"
    return BusyError(f"{who} writes there{since}", where=where, fix=fix)
