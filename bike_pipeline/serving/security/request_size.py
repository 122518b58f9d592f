"""How much a request holds, found out before it is parsed or turned into arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bike_pipeline import features
from bike_pipeline.serving.security.identity import Refusal

if TYPE_CHECKING:
    from bike_pipeline.settings.serving_security import LimitSettings

# An opening bracket is a step down, a closing one a step up (255 is -1 in eight bits), a quotation mark none.
_STEPS = bytes.maketrans(b'[{]}"', b"\x01\x01\xff\xff\x00")
_ALL_BUT_MARKS = bytes(set(range(256)) - set(b'[]{}"'))
# Values of a row beside its inputs: those that the model ignores (label, leaks, keys), and a list around each of them.
_VALUES_A_ROW = 2 * len(features.COLUMNS)


def check_json(body: bytes, limits: LimitSettings) -> None:
    """Let a JSON body pass that is neither too deep nor holds too many values.

    Works on the text, with a few vector operations: a body that is refused was never parsed.

    Args:
        body: the text, UTF-8; malformed JSON is left to the parser.
        limits: the limits.

    Raises:
        Refusal: it is too deep, or holds more values than the allowed number of rows has.
    """
    if body.count(b",") > limits.rows * _VALUES_A_ROW:
        raise _too_many_rows(limits.rows)
    if body.count(b"[") + body.count(b"{") <= limits.json_depth:
        return
    if _depth(body) > limits.json_depth:
        raise Refusal(400, "INVALID_ARGUMENT", f"The JSON is nested deeper than {limits.json_depth} levels.")


def _depth(body: bytes) -> int:
    """Return how many brackets outside of texts are open at once, at most."""
    import numpy as np

    if b"\\" in body:
        # Escaped backslashes first: what is left of them escapes what follows.
        body = body.replace(rb"\\", b"").replace(rb"\"", b"")
    marks = np.frombuffer(body.translate(_STEPS, _ALL_BUT_MARKS), dtype=np.int8)
    # Odd behind a quotation mark that opens a text, even behind one that closes it; overflow keeps that.
    inside = np.cumsum(marks == 0, dtype=np.uint8) & 1
    return int(np.cumsum(marks * (1 - inside), dtype=np.int32).max(initial=0))


def check_rows(rows: int, most: int) -> None:
    """Let that many rows pass.

    Args:
        rows: the rows of a request.
        most: the limit.

    Raises:
        Refusal: they are too many.
    """
    if rows > most:
        raise _too_many_rows(most)


def _too_many_rows(rows: int) -> Refusal:
    return Refusal(400, "INVALID_ARGUMENT", f"The request holds more than {rows} rows; send several.")
