r"""Paths for readers that take patterns: what a path says literally, whatever a person put into a folder's name.

TensorFlow matches file names with `[`, `*`, `?` and `\` even where it loads one SavedModel, whose folder must be a
literal path at the same time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

_SPECIAL = re.compile(r"[*?\[\\]")


def as_pattern(path: str) -> str:
    """Return the pattern that matches just this path, for TensorFlow's and Beam's readers."""
    return re.sub(r"[*?\[]", r"[\g<0>]", path.replace("\\", "\\\\"))


@contextmanager
def plain_folder(path: str | os.PathLike[str]) -> Iterator[str]:
    """Have another path of a folder, which means the same as a pattern; the folder's own if that is so already.

    It is one of this process only, and ends with the block.
    """
    own = os.fspath(path)
    if "://" in own or not _SPECIAL.search(own):
        yield own
        return
    descriptor = os.open(own, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
