"""Where the candidates of a model are kept: numbered folders, complete or absent, the newest one only."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from bike_pipeline.storage.atomic_files import storage_error, sync_folder, sync_tree

_INCOMING = ".incoming-"


class NewResult:
    """A result in the making: a folder aside, which `publish` puts in its place and anything else removes.

    Attributes:
        folder: where to write.
    """

    def __init__(self, base: Path) -> None:
        """Make the folder, and remove what a killed process left aside."""
        self._base = base
        self._number = max(_numbers(base), default=0) + 1
        self.folder = base / f"{_INCOMING}{self._number}"
        try:
            base.mkdir(parents=True, exist_ok=True)
            for left in base.glob(f"{_INCOMING}*"):
                shutil.rmtree(left)
            self.folder.mkdir()
        except OSError as error:
            raise storage_error(error, "write", base) from error

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove what was not published; a full disk is told as such."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise storage_error(error, "write", self._base) from error

    def publish(self) -> Path:
        """Flush the folder, rename it into its place, remove the results before, and return it."""
        before = _numbers(self._base)
        sync_tree(self.folder)
        target = self._base / str(self._number)
        self.folder.rename(target)
        sync_folder(self._base)
        for number in before:
            shutil.rmtree(self._base / str(number), ignore_errors=True)
        return target


def newest(base: Path) -> Path | None:
    """Return the folder of a model's newest result; None where there is none."""
    numbers = _numbers(base)
    return base / str(max(numbers)) if numbers else None


def _numbers(base: Path) -> list[int]:
    return [int(path.name) for path in base.iterdir() if path.name.isdigit()] if base.is_dir() else []
