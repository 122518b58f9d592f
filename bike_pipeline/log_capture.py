"""Keeps TensorFlow's, Beam's and TFX's talk out of the way: all of it goes to a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from bike_pipeline.errors import StorageError
from bike_pipeline.screen import screen_on


@contextmanager
def captured(log_file: Path) -> Iterator[TextIO]:
    """Send everything that is written to standard output and standard error to `log_file`, from C++ code as well.

    Yields:
        The real standard output, for what a person should see; what is written after its reader has gone is dropped.

    Raises:
        StorageError: the log file cannot be written.
    """
    try:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise StorageError(
            f"cannot write the log ({error.strerror or error})",
            where=str(log_file),
            fix="grant write permission, free space, or choose another workspace: --set workspace=FOLDER",
        ) from None
    sys.stdout.flush()
    sys.stderr.flush()
    real_out, real_err = os.dup(1), os.dup(2)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    screen = screen_on(os.dup(real_out), sys.stdout)
    try:
        yield screen
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(real_out, 1)
        os.dup2(real_err, 2)
        os.close(real_out)
        os.close(real_err)
        screen.close()
