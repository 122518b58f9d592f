"""What an environment takes on the disk, asked for before anything is changed. Standard library only."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from steps import fail

# Bytes, measured with all development packages on Python 3.11: 4.4 GB of packages, 0.15 GB of byte code after the first
# run; 0.55 GB more where byte code is written for everything.
PACKAGES = 4.6 * 10**9
ALL_BYTE_CODE = 0.6 * 10**9
# What uv's download cache holds. On one file system with the environment both are the same files by hard links.
CACHE = 4.4 * 10**9


def compiles_all() -> bool:
    """Return whether byte code has to be written by the set-up.

    Python writes it when a module is first imported, which costs less in sum than compiling what nobody imports. Where
    PYTHONDONTWRITEBYTECODE keeps it from doing so, every start of a program would compile TensorFlow and TFX again.
    """
    return bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))


def cache_folder() -> Path:
    """Return where uv keeps what it downloads."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("UV_CACHE_DIR") or Path(home) / "uv")


def existing(path: Path) -> Path:
    """Return the nearest folder above that is there, whose file system the path will be on."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


def check(venv: Path) -> None:
    """Stop where the environment, or the download cache on a disk of its own, does not fit.

    Raises:
        SystemExit: too little is free; the message says where and how much is needed.
    """
    needed = PACKAGES + (ALL_BYTE_CODE if compiles_all() else 0)
    home, cache = existing(venv.parent), existing(cache_folder())
    wanted = [(home, "the environment", needed, "put the environment elsewhere by making .venv a link to a folder on")]
    if home.stat().st_dev != cache.stat().st_dev:
        wanted.append((cache, "the download cache", CACHE, "name a folder for UV_CACHE_DIR on"))
    for folder, what, size, elsewhere in wanted:
        free = shutil.disk_usage(folder).free
        if free < size:
            fail(
                f"{free / 1e9:.1f} GB are free in {folder}; {what} needs about {size / 1e9:.1f} GB",
                f"free some space, or {elsewhere} another disk",
            )
