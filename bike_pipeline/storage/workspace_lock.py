"""The lock of a workspace: runs and whatever frees their files take turns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bike_pipeline.errors import BusyError, StorageError


@contextmanager
def workspace_lock(workspace: Path, wait: bool) -> Iterator[None]:
    """Hold the workspace: two runs at once on one metadata store would harm each other.

    Args:
        workspace: the workspace's folder; it is made where it is absent.
        wait: wait for another run to end, instead of refusing.

    Raises:
        BusyError: another run holds it and `wait` is off.
        StorageError: the workspace cannot be written.
    """
    from filelock import FileLock, Timeout

    try:
        workspace.mkdir(parents=True, exist_ok=True)
        lock = FileLock(workspace / "run.lock", timeout=-1 if wait else 0)
        lock.acquire()
    except Timeout:
        raise BusyError(
            "another run is working in this workspace",
            where=str(workspace),
            fix="let it end, or call again with --wait",
        ) from None
    except OSError as error:
        raise StorageError(
            f"cannot write to the workspace ({error.strerror or error})",
            where=str(workspace),
            fix="grant write permission, free space, or choose another one: --set workspace=FOLDER",
        ) from None
    try:
        yield
    finally:
        lock.release()
