"""What is written for a person goes out on any stream: of any encoding, and also after its reader is gone."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
import unicodedata
from typing import TextIO

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


def screen_on(descriptor: int, like: TextIO) -> Screen:
    """Return a stream on a file descriptor with the encoding of another stream."""
    return Screen(descriptor, getattr(like, "encoding", None) or "utf-8")
