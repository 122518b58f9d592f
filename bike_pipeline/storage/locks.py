"""Locks between processes of one machine: a file that the operating system frees when its holder dies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bike_pipeline.errors import BusyError
from bike_pipeline.storage.atomic_files import storage_error

FOREVER = -1.0


@contextmanager
def file_lock(path: Path, busy: BusyError, *, seconds: float, mode: int = 0o644) -> Iterator[None]:
    """Hold the lock file `path`, which stays; its folder is made.

    If another process holds it longer than `seconds` (or FOREVER), that is the BusyError `busy`; if the folder or the
    file cannot be made, a StorageError.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, timeout=seconds, mode=mode)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise busy from None
    except OSError as error:
        raise storage_error(error, "lock", path.parent) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def workspace_lock(workspace: Path, wait: bool) -> Iterator[None]:
    """Hold the workspace's folder, which is made: two runs at once on one metadata store would harm each other.

    Another run that holds it and is not to be waited for is a BusyError.
    """
    busy = BusyError(
        "another run is working in this workspace",
        where=str(workspace),
        fix="let it end, or call again with --wait",
    )
    with file_lock(workspace / "run.lock", busy, seconds=FOREVER if wait else 0):
        yield
