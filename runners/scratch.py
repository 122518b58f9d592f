"""One folder for whatever a run and its libraries put aside, so that nothing of it is left, not even after a kill."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = "bike-run-"
# In the workspace: where the run at work has its folder.
_NOTE = "run.scratch"


@contextmanager
def scratch(workspace: Path) -> Iterator[None]:
    """Have temporary files of this process, and of those that it starts, in a folder that ends with the block.

    Beam makes a folder for each pipeline that it only plans, exports and validation make theirs, and a process that is
    killed removes none. The caller holds the workspace, so what the note names is a dead run's.
    """
    note = workspace / _NOTE
    _clear(note)
    before, variable = tempfile.tempdir, os.environ.get("TMPDIR")
    folder = tempfile.mkdtemp(prefix=_PREFIX)
    note.write_text(folder, encoding="utf-8", errors="surrogateescape")
    tempfile.tempdir = os.environ["TMPDIR"] = folder
    try:
        yield
    finally:
        tempfile.tempdir = before
        if variable is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = variable
        _clear(note)


def _clear(note: Path) -> None:
    try:
        folder = Path(note.read_text(encoding="utf-8", errors="surrogateescape"))
    except (OSError, UnicodeDecodeError):
        return
    # The note is a file that anybody may have written.
    if folder.is_absolute() and folder.name.startswith(_PREFIX) and not folder.is_symlink():
        shutil.rmtree(folder, ignore_errors=True)
    note.unlink(missing_ok=True)
