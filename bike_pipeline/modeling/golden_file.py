"""`golden.json` of a pushed version: rows and what the model answers to them, among them rows of a broken sensor."""

from __future__ import annotations

import json
import math
from pathlib import Path

from bike_pipeline import features

_NOT_FINITE = "not_finite"


def read(path: Path) -> tuple[dict[str, list[float]], list[float]]:
    """Return the rows by column, and the answers to them in rentals an hour.

    Rows with a number that is not finite stand last and are answered with NaN; a version that an earlier release pushed
    has none.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no JSON, or an answer on record or a text is no number.
        KeyError: a column or the answers are missing.
        TypeError: it is of another form.
    """
    golden = json.loads(path.read_text(encoding="utf-8"))
    answers = [float(value) for value in golden[features.LABEL]]
    if not all(map(math.isfinite, answers)):
        raise ValueError("an answer to a sound row is not a number")
    broken = golden[_NOT_FINITE]["columns"] if _NOT_FINITE in golden else {}
    columns = {
        name: [*values, *(float(value) if isinstance(value, str) else value for value in broken.get(name, ()))]
        for name, values in golden["columns"].items()
    }
    rows = max(map(len, broken.values()), default=0)
    return columns, [*answers, *[math.nan] * rows]
