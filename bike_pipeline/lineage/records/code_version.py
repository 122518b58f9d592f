"""Which code runs: the commit where git is at hand, and the hash of every source file in any case."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bike_pipeline.settings import PROJECT_ROOT
from bike_pipeline.version import __version__

# Set when an image is built: there is no git in a container.
COMMIT_VARIABLE = "BIKE_PIPELINE_GIT_COMMIT"
# What a run executes or reads, relative to the project; a change elsewhere does not make the tree dirty.
_ROOMS = ("bike_pipeline", "runners", "configs")


@dataclass(frozen=True)
class CodeVersion:
    """The code of a run: its git commit ("" if it is not known), and the SHA-256 of every source file and over all.

    `dirty` says whether the code differs from that commit; None if that is not known.
    """

    version: str
    commit: str
    dirty: bool | None
    source_sha256: str
    files: dict[str, str]


def source_files(root: Path = PROJECT_ROOT) -> dict[str, str]:
    """Return the SHA-256 of every Python file of the package and the runners, by its path in the project."""
    # In a checkout the package's `runners` is a link to the folder beside it; installed, it is a folder of its own.
    checkout = (root / "bike_pipeline").is_dir()
    # An installed package is a root itself.
    top, rooms = (root, ("bike_pipeline", "runners")) if checkout else (root.parent, (root.name,))
    found = sorted(path for room in rooms for path in (top / room).rglob("*.py"))
    names = [re.sub("^bike_pipeline/runners/", "runners/", path.relative_to(top).as_posix()) for path in found]
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in sorted(zip(names, found, strict=True))
    }


def hash_of(files: dict[str, str]) -> str:
    """Return one SHA-256 for the hashes of `source_files`."""
    return hashlib.sha256("".join(f"{name}\0{files[name]}\n" for name in sorted(files)).encode()).hexdigest()


def code_version(root: Path = PROJECT_ROOT) -> CodeVersion:
    """Return the version of the code in `root`, the folder that holds configs/."""
    files = source_files(root)
    commit, dirty = _commit(root)
    return CodeVersion(__version__, commit, dirty, hash_of(files), files)


def _commit(root: Path) -> tuple[str, bool | None]:
    # An installed package may lie inside of somebody else's repository, in its ignored .venv.
    if _git(root, "ls-files", "--error-unmatch", "bike_pipeline/__init__.py") is None:
        return os.environ.get(COMMIT_VARIABLE, ""), None
    commit, changes = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain", "--", *_ROOMS)
    return (commit or "").strip(), None if changes is None else bool(changes.strip())


def _git(root: Path, *arguments: str) -> str | None:
    # Taking the lock of the index, only to refresh it, could get in the way of somebody's commit.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
