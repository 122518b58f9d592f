"""How much one request may hold, found out before it is parsed: depth and number of values of JSON, and rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bike_pipeline import features
from bike_pipeline.serving.statuses import StatusError, invalid

if TYPE_CHECKING:
    from bike_pipeline.settings.serving import LimitSettings

# Bytes of a message that is parsed within the event loop; a larger one would hold others up.
SMALL = 64 * 1024

# An opening bracket is a step down, a closing one a step up (255 is -1 in eight bits), a quotation mark none.
_STEPS = bytes.maketrans(b'[{]}"', b"\x01\x01\xff\xff\x00")
_ALL_BUT_MARKS = bytes(set(range(256)) - set(b'[]{}"'))
# Values of a row beside its inputs: those that the model ignores (label, leaks, keys), and a list around each of them.
_VALUES_A_ROW = 2 * len(features.BY_NAME)
# A row is an object, or a list around each of its values; each costs the parser fifty times its two bytes.
_LISTS_A_ROW = 1 + len(features.BY_NAME)
_LISTS_AROUND = 1024


def check_json(body: bytes, limits: LimitSettings) -> None:
    """Let a JSON body pass that is neither too deep nor holds too many values; malformed JSON is left to the parser.

    Works on the text, with a few vector operations: a body that is refused was never parsed.
    """
    if body.count(b",") > limits.rows * _VALUES_A_ROW:
        raise _too_many_rows(limits.rows)
    if body.count(b"[") + body.count(b"{") <= min(limits.json_depth, _LISTS_AROUND):
        return
    depth, opened = _brackets(body)
    if depth > limits.json_depth:
        raise invalid(f"The JSON is nested deeper than {limits.json_depth} levels.")
    if opened > limits.rows * _LISTS_A_ROW + _LISTS_AROUND:
        raise _too_many_rows(limits.rows)


def _brackets(body: bytes) -> tuple[int, int]:
    """Return how many brackets outside of texts are open at once, at most, and how many are opened in all."""
    import numpy as np

    if b"\\" in body:
        # Escaped backslashes first: what is left of them escapes what follows.
        body = body.replace(rb"\\", b"").replace(rb"\"", b"")
    marks = np.frombuffer(body.translate(_STEPS, _ALL_BUT_MARKS), dtype=np.int8)
    # Odd behind a quotation mark that opens a text, even behind one that closes it; overflow keeps that.
    inside = np.cumsum(marks == 0, dtype=np.uint8) & 1
    steps = marks * (1 - inside)
    return int(np.cumsum(steps, dtype=np.int32).max(initial=0)), int(np.count_nonzero(steps > 0))


def check_rows(rows: int, most: int) -> None:
    """Let that many rows of a request pass, or refuse."""
    if rows > most:
        raise _too_many_rows(most)


def _too_many_rows(rows: int) -> StatusError:
    return invalid(f"The request holds more than {rows} rows; send several.")
