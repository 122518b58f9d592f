"""What libraries write goes to a file; what is written for a person, to any stream, also after its reader is gone."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from bike_pipeline.errors import StorageError

ERRORS = "bike_pipeline.plain"
# What stands for a character that a stream's encoding lacks; marks that mean opposite things stay different.
_PLAIN = {
    "✔": "+", "✘": "x", "▶": ">", "·": ".", "…": "...", "→": "->", "←": "<-", "×": "x", "−": "-", "–": "-", "—": "-",
    "≤": "<=", "≥": ">=", "≈": "~", "±": "+-", "Σ": "sum", "µ": "u", "°": " deg", "•": "*", "ß": "ss",
    "│": "|", "├": "|", "└": "`", "─": "-", "━": "=", "╌": ".", "╸": "=", "╺": "-",
    "’": "'", "“": '"', "”": '"', "„": '"',
}  # fmt: skip


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    shown = []
    for character in error.object[error.start : error.end]:
        stripped = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
        shown.append(_PLAIN.get(character) or stripped or "?")
    return "".join(shown), error.end


codecs.register_error(ERRORS, _plain)


def take_any_text() -> None:
    """Let standard output and standard error write every text, whatever their encoding is."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ERRORS)


class Screen(io.TextIOWrapper):
    """A line-buffered stream to a person; what nobody reads any more is dropped, and the work goes on."""

    def __init__(self, descriptor: int, encoding: str) -> None:
        """Write to a file descriptor, which is closed with the stream."""
        super().__init__(os.fdopen(descriptor, "wb"), encoding=encoding, errors=ERRORS, line_buffering=True)

    def write(self, text: str) -> int:
        """Write a text, where somebody reads it."""
        try:
            return super().write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        """Hand on what is buffered, where somebody reads it."""
        try:
            super().flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        # The other end of a pipe was closed, or the terminal.
        if error.errno not in (errno.EPIPE, errno.EIO):
            raise error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


@contextmanager
def diverted(target: int, *streams: int) -> Iterator[list[int]]:
    """Send what is written to file descriptors to another one, from C++ code as well; yield where they led before."""
    sys.stdout.flush()
    sys.stderr.flush()
    before = [os.dup(stream) for stream in streams]
    for stream in streams:
        os.dup2(target, stream)
    try:
        yield before
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, stream in zip(before, streams, strict=True):
            os.dup2(descriptor, stream)
            os.close(descriptor)


@contextmanager
def captured(log_file: Path) -> Iterator[TextIO]:
    """Send everything that is written to standard output and standard error to `log_file`, from C++ code as well.

    Yields the real standard output, for what a person should see; what is written after its reader has gone is dropped.
    A StorageError if the log file cannot be written.
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
    try:
        with (
            diverted(log, 1, 2) as before,
            Screen(os.dup(before[0]), getattr(sys.stdout, "encoding", None) or "utf-8") as screen,
        ):
            yield screen
    finally:
        os.close(log)
