"""Lines of the request log as the server writes them, made in the process of the test."""

from __future__ import annotations

import datetime as dt
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bike_pipeline import features
from bike_pipeline.serving import request_log
from bike_pipeline.serving.protos import types_pb2
from bike_pipeline.serving.request_log import About, Entry
from bike_pipeline.serving.request_log_files import Place

MODEL = "bike_demand"
NOW = dt.datetime(2026, 11, 30, 12, tzinfo=dt.UTC)
TYPES = {"int": types_pb2.DT_INT64, "float": types_pb2.DT_FLOAT}
# Sunday, 1 April 2012, 8:00: the hour 10,952 since 2011.
ROW: dict[str, Any] = {
    "yr": 1,
    "mnth": 4,
    "hr": 8,
    "holiday": 0,
    "weekday": 0,
    "workingday": 0,
    "weathersit": 1,
    "temp": 0.5,
    "atemp": 0.5,
    "hum": 0.5,
    "windspeed": 0.25,
    "day": 1,
}
HOUR = 456 * 24 + 8


def entry(
    name: str,
    *rows: Mapping[str, Any],
    answers: Iterable[float] = (),
    at: dt.datetime = NOW,
    code: str = "OK",
    version: int = 7,
    quantiles: Any = None,
    rate: float = 1.0,
) -> Entry:
    """Return a request with a name, of rows with the same inputs, answered with 100, 101 and so on by default."""
    began = int(at.timestamp() * 1e6) * 1000
    if code != "OK":
        return Entry(began, 250_000, name, "http", MODEL, code, rate, None, None, ())
    sent = sorted(rows[0])
    types = tuple((name, TYPES[features.BY_NAME[name].kind]) for name in sent)
    answered = np.array([*answers] or [100.0 + number for number in range(len(rows))], np.float32)
    columns = [[row[name] for row in rows] for name in sent]
    outputs = (("cnt", answered.dtype.str, answered.shape, answered.tobytes()),)
    about = About(version, "serving_all_inputs", "tflite_float32", types, quantiles)
    return Entry(began, 250_000, name, "http", MODEL, code, rate, about, columns, outputs)


def write(folder: Path, *entries: Entry, most_bytes: int = 10**8, files: int = 4) -> list[Path]:
    """Write requests as the server's writer does; return the files of lines there are."""
    place = Place(str(folder), most_bytes, files)
    written = request_log.write(packed(*entries), place)
    assert not written, written
    return sorted(folder.glob("*.jsonl"))


def packed(*entries: Entry) -> bytes:
    """Return requests as the server hands them over."""
    common = {id(one.about): one.about and tuple(one.about) for one in entries}
    return pickle.dumps((common, [pickle.dumps((one[:7], id(one.about), *one[8:])) for one in entries]))


def lines(*entries: Entry) -> list[bytes]:
    """Return the lines of requests."""
    return request_log.lines(entries).splitlines(keepends=True)
