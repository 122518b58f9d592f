"""Writing local files so that a crash at any point leaves either the old content or the new one, and locks.

A lock between processes of one machine is a file that the operating system frees when its holder dies. The only module
that flushes to the disk and that takes locks; a test says so.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bike_pipeline.errors import BusyError, StorageError

FOREVER = -1.0
_FIXES = {
    errno.ENOSPC: "free some space and run it again",
    errno.EDQUOT: "free some space or raise the quota, and run it again",
    errno.EFBIG: "raise the file-size limit (ulimit -f) and run it again",
    errno.EACCES: "give this user the right to write there, or choose another folder",
    errno.EPERM: "give this user the right to write there, or choose another folder",
    errno.EROFS: "choose a folder on a file system that can be written",
    errno.ENOTDIR: "a part of that path is a file: choose another folder",
    errno.EEXIST: "a file is in the way: choose another folder",
    errno.ENOENT: "check the path",
}


def storage_error(error: OSError, doing: str, where: str | os.PathLike[str]) -> StorageError:
    """Return the StorageError that says in one line what the operating system refused, such as to "write" `where`."""
    reason = error.strerror or str(error) or type(error).__name__
    if isinstance(error, shutil.Error):
        # shutil gathers what failed as (source, destination, reason).
        reason = str(error.args[0][0][2])
    fix = _FIXES.get(error.errno or 0, "check the folder, its permissions and the space that is left")
    return StorageError(f"cannot {doing} it: {reason.lower()}", where=os.fspath(where), fix=fix)


@contextmanager
def one_error(doing: str, where: str | os.PathLike[str]) -> Iterator[None]:
    """Raise whatever the operating system refuses in the block as a StorageError; see `storage_error`."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, doing, where) from error


def sync_path(path: str | os.PathLike[str]) -> None:
    """Flush a file, or a folder's entries, to the disk, so that a rename in it survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Flush every file and folder below `folder`, and itself, before it is renamed into its place."""
    for path in (*folder.rglob("*"), folder):
        sync_path(path)


def write_and_sync(path: str | os.PathLike[str], content: bytes, *, append: bool = False, mode: int = 0o666) -> None:
    """Write a file, or add to its end, and flush it to the disk; not atomic by itself.

    The `mode` of a file that is made is less the process's umask.
    """
    flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if append else os.O_TRUNC)
    with open(path, "ab" if append else "wb", opener=lambda name, _: os.open(name, flags, mode)) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_file(target: Path, content: bytes, *, mode: int = 0o666) -> None:
    """Write `content` beside `target`, flush it, and rename it into place; folders above it are made."""
    aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    with one_error("write", target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_and_sync(aside, content, mode=mode)
            aside.replace(target)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        sync_path(target.parent)


def create_file(target: Path, content: bytes, *, mode: int = 0o600) -> bool:
    """Create a file whole, unless it exists: return whether this call made it. Its folder is there."""
    aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        write_and_sync(aside, content, mode=mode)
        # A link never replaces the file of a process that was faster.
        os.link(aside, target)
    except FileExistsError:
        return False
    finally:
        aside.unlink(missing_ok=True)
    return True


def create_folder(target: Path, fill: Callable[[Path], None]) -> None:
    """Create a folder of what `fill` writes into an empty one beside it, flushed, by one rename.

    A StorageError if it cannot be written, or holds something already.
    """
    aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    with one_error("write", target):
        aside.mkdir(parents=True)
        try:
            fill(aside)
            sync_tree(aside)
            aside.rename(target)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        sync_path(target.parent)


def write_tree(folder: Path, contents: dict[str, bytes]) -> None:
    """Write files by their relative path into a folder, unflushed; ValueError for a name that leads out of it."""
    for name, content in contents.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{name} leads out of its folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


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


def lock_open_file(descriptor: int) -> bool:
    """Lock an open file until it is closed, if no other process holds it: return whether this one does now."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


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
