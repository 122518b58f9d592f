"""Reads the request log: sound lines become rows; all others are told with place and reason, and stop nothing.

What shippers such as Filebeat add beside our fields is passed over; a line with an unknown field below `bike` is not.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bike_pipeline import features
from bike_pipeline.errors import first_words
from bike_pipeline.modeling.feedback import FIRST_DAY, hours_of
from bike_pipeline.storage.atomic_files import replace_file

if TYPE_CHECKING:
    import pyarrow as pa

# What an hour is where the client sent no day, or none that there is.
NO_HOUR = -1
# Bytes of a line, of which a row takes less than one; lines of a table.
MOST_BYTES = 1 << 16
CHUNK = 20_000
# Of one ingest, what is kept of bad lines; those beyond are counted.
MOST_KEPT = 10_000
_EXCERPT = 200
_GZIP, _BYTE_ORDER_MARK = b"\x1f\x8b", b"\xef\xbb\xbf"
_ABOUT = frozenset(
    {"schema", "sampling_rate", "model", "version", "signature", "backend", "row", "features", "answer", "interval"}
)
_INT64 = 1 << 63
# Those of the first schema do not say which share of the requests was kept.
_SCHEMAS = (1, 2)
_INTS = {f.name for f in features.MODEL_INPUTS if f.kind == "int"}
_REQUIRED = tuple(f.name for f in features.REQUIRED_INPUTS)
# What stands for an optional input that was not sent.
_ABSENT = {f.name: 0 if f.kind == "int" else float("nan") for f in features.OPTIONAL_INPUTS}
_EARLIEST = datetime(features.FIRST_YEAR, 1, 1, tzinfo=UTC)
_TOLERATED = timedelta(days=1)
# Of rows, in their order, beside the model's inputs: what they were asked with, and where they stand.
ABOUT = ("request_id", "row", "requested_at", "digest", "sampling_rate", "code", "version", "latency_us")
ANSWERED = ("answer", "lower", "upper")
PLACE = ("file", "line")


class _BadLineError(Exception):
    """A line that is set aside; its text is the reason."""


class _OtherLineError(Exception):
    """A line that is sound and no observation."""


@dataclass(frozen=True)
class BadLine:
    """A line that was set aside: where it stands, counted from 1, why, and how it begins."""

    file: str
    line: int
    reason: str
    excerpt: str


@dataclass
class Reading:
    """What was read so far.

    Attributes:
        files: files that were read.
        lines: lines in them.
        failures: requests that were answered with an error.
        other: lines that are sound and no observation, by what they are.
        reasons: bad lines by reason.
        bad: the first of them.
    """

    files: int = 0
    lines: int = 0
    failures: int = 0
    other: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    bad: list[BadLine] = field(default_factory=list)

    def set_aside(self, file: str, line: int, reason: str, content: bytes = b"") -> None:
        """Count a bad line, and keep it if there are not too many."""
        self.reasons[reason] += 1
        if len(self.bad) < MOST_KEPT:
            excerpt = content[:_EXCERPT].decode("utf-8", "backslashreplace")
            self.bad.append(BadLine(file, line, reason, excerpt))

    def write(self, folder: Path) -> str:
        """Write the bad lines with their places; return the file's path, "" if there are none."""
        if not self.bad:
            return ""
        content = "".join(f"{json.dumps(asdict(bad), ensure_ascii=False)}\n" for bad in self.bad).encode(
            "utf-8", "replace"
        )
        path = folder / f"{hashlib.sha256(content).hexdigest()[:16]}.jsonl"
        replace_file(path, content)
        return str(path)


def schema() -> pa.Schema:
    """Return the columns of rows: those of the module, the hour, the model's inputs."""
    import pyarrow as pa

    kinds = {
        "request_id": pa.string(),
        "row": pa.int32(),
        "requested_at": pa.timestamp("us"),
        "digest": pa.uint32(),
        "sampling_rate": pa.float64(),
        "code": pa.string(),
        "version": pa.int64(),
        "latency_us": pa.float64(),
    }
    inputs = {f.name: pa.int64() if f.kind == "int" else pa.float64() for f in features.MODEL_INPUTS}
    answered = dict.fromkeys(ANSWERED, pa.float32())
    return pa.schema({**kinds, **inputs, **answered, "file": pa.string(), "line": pa.int64(), "hour": pa.int64()})


def is_log(path: Path) -> bool:
    """Return whether a path is a file of lines of a request log."""
    return path.is_file() and path.name.endswith((".jsonl", ".jsonl.gz"))


def stamp_of(path: Path) -> list[int]:
    """Return what changes when a file is written to."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def stage(logs: Sequence[Path], aside: Path, model: str, now: datetime, reading: Reading) -> None:
    """Write the rows of files as Parquet of `schema` into a folder; see `read`."""
    import pyarrow.parquet as pq

    tables = (table for path in logs for table in read(path, model, now, reading))
    for number, table in enumerate(tables):
        pq.write_table(table, aside / f"{number:06d}.parquet", compression="lz4")


def read(path: Path, model: str, now: datetime, reading: Reading) -> Iterator[pa.Table]:
    """Yield the rows of a file of the request log in tables of `schema`, and tell `reading` about all else.

    Args:
        path: a file of lines, plain or gzip.
        model: the model whose requests are wanted.
        now: the time, with a zone; requests of the day after tomorrow are none.
        reading: what was read before, which is added to.

    Raises:
        OSError: the file cannot be read.
    """
    reading.files += 1
    rows: list[tuple[Any, ...]] = []
    latest = now + _TOLERATED
    for number, content in enumerate(_lines(path, reading), 1):
        reading.lines += 1
        try:
            rows.append((*_row(content, model, latest), path.name, number))
        except _OtherLineError as other:
            reading.other[str(other)] += 1
        except _BadLineError as bad:
            reading.set_aside(path.name, number, str(bad), content)
        if len(rows) == CHUNK:
            yield _table(rows, reading)
            rows = []
    if rows:
        yield _table(rows, reading)


def _lines(path: Path, reading: Reading) -> Iterator[bytes]:
    """Yield lines without their ends; of one that is too long the beginning, with its end as a sign that it is."""
    with path.open("rb") as plain:
        packed = plain.read(2) == _GZIP
        plain.seek(0)
        stream: Any = gzip.GzipFile(fileobj=plain) if packed else plain
        file = io.BufferedReader(stream) if packed else stream
        first = True
        try:
            while content := file.readline(MOST_BYTES):
                if first:
                    content, first = content.removeprefix(_BYTE_ORDER_MARK), False
                if len(content) == MOST_BYTES and not content.endswith(b"\n"):
                    while (rest := file.readline(MOST_BYTES)) and not rest.endswith(b"\n"):
                        pass
                yield content
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            reading.set_aside(path.name, reading.lines + 1, "damaged gzip", first_words(error).encode())


def _row(content: bytes, model: str, latest: datetime) -> tuple[Any, ...]:
    """Return a line as a row, or say why it is none."""
    import orjson

    if not content.endswith(b"\n"):
        raise _BadLineError("too long" if len(content) >= MOST_BYTES else "cut off")
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise _BadLineError(_why_no_json(content)) from None
    if type(found) is not dict:
        raise _BadLineError("no JSON object")
    try:
        about, event = _about(found, model)
        code = str(found["error"]["code"]) if event["outcome"] == "failure" else "OK"
        duration, row = event["duration"], about["row"]
        request_id, at = found["http"]["request"]["id"], found["@timestamp"]
        if not (_is_count(duration) and _is_count(row) and row < 1 << 31):
            raise _BadLineError("wrong type")
        if not (type(request_id) is str and 0 < len(request_id) <= 256 and type(at) is str):
            raise _BadLineError("wrong type")
        moment = _moment(at, latest)
        start = (request_id, row, moment, zlib.crc32(content), _rate(about), code)
        if code != "OK":
            return *start, 0, duration / 1e3, *_NO_INPUTS, *_NO_ANSWER
        if "features" not in about:
            raise _OtherLineError("without features")
        if not _is_count(about["version"]):
            raise _BadLineError("wrong type")
        return *start, about["version"], duration / 1e3, *_inputs(about["features"]), *_answer(about)
    except KeyError:
        raise _BadLineError("field missing") from None
    except (TypeError, AttributeError):
        raise _BadLineError("wrong type") from None


_NO_INPUTS = tuple(0 if f.kind == "int" else float("nan") for f in features.MODEL_INPUTS)
_NO_ANSWER = (float("nan"),) * 3


def _why_no_json(content: bytes) -> str:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return "not UTF-8"
    return "not JSON" if text.strip() else "empty line"


def _about(found: dict[str, Any], model: str) -> tuple[dict[str, Any], dict[str, Any]]:
    from bike_pipeline.serving.request_log import DATASET

    event = found["event"]
    if event["dataset"] != DATASET:
        raise _OtherLineError("another dataset")
    about: dict[str, Any] = found["bike"]
    if about["schema"] not in _SCHEMAS or type(about["schema"]) is not int:
        raise _BadLineError("another schema")
    if not about.keys() <= _ABOUT:
        raise _BadLineError("unknown field")
    if event["outcome"] not in {"success", "failure"}:
        raise _BadLineError("wrong type")
    if about["model"] != model:
        raise _OtherLineError("another model")
    return about, event


def _moment(text: str, latest: datetime) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise _BadLineError("no time") from None
    if found.tzinfo is None:
        raise _BadLineError("no time zone")
    if found > latest:
        raise _BadLineError("in the future")
    if found < _EARLIEST:
        raise _BadLineError("too early")
    return found.astimezone(UTC).replace(tzinfo=None)


def _rate(about: dict[str, Any]) -> float:
    rate = 1.0 if about["schema"] == 1 else _float(about["sampling_rate"])
    if not 0.0 < rate <= 1.0:
        raise _BadLineError("wrong type")
    return rate


def _inputs(sent: dict[str, Any]) -> list[Any]:
    values = {**_ABSENT, **sent}
    if len(values) != len(_NO_INPUTS):
        known = all(name in features.BY_NAME for name in values)
        raise _BadLineError("field missing" if known else "unknown field")
    return [_int(values[f.name]) if f.name in _INTS else _float(values[f.name]) for f in features.MODEL_INPUTS]


def _answer(about: dict[str, Any]) -> tuple[float, float, float]:
    interval = about.get("interval", {})
    if not interval.keys() <= {"lower", "upper"}:
        raise _BadLineError("unknown field")
    return _float(about.get("answer")), _float(interval.get("lower")), _float(interval.get("upper"))


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _INT64


def _int(value: Any) -> int:
    if type(value) is not int or not -_INT64 <= value < _INT64:
        raise _BadLineError("wrong type")
    return value


def _float(value: Any) -> float:
    # JSON says what is no number as null.
    if value is None:
        return float("nan")
    if type(value) is not float and type(value) is not int:
        raise _BadLineError("wrong type")
    return float(value)


def _table(rows: list[tuple[Any, ...]], reading: Reading) -> pa.Table:
    import pyarrow as pa

    kinds = schema()
    columns = [pa.array(values, kind.type) for values, kind in zip(zip(*rows, strict=True), kinds, strict=False)]
    names = [f.name for f in features.REQUIRED_INPUTS] + ["day"]
    inputs = {name: columns[kinds.get_field_index(name)].to_numpy() for name in names}
    hours = joinable_hours(inputs)
    reading.failures += sum(row[ABOUT.index("code")] != "OK" for row in rows)
    return pa.table([*columns, pa.array(hours)], schema=kinds)


def joinable_hours(inputs: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.int64]:
    """Return the hour of rows as of `modeling.feedback.hours_of`, (rows,); `NO_HOUR` where their date is none."""
    year, month, day, hour = (inputs[name] for name in ("yr", "mnth", "day", "hr"))
    there = (year >= 0) & (year <= features.MOST_YEARS) & (month >= 1) & (month <= 12) & (hour >= 0) & (hour <= 23)
    there &= (day >= 1) & (day <= 31)
    dated = {name: np.where(there, inputs[name], 1) for name in ("yr", "mnth", "day", "hr")}
    hours = hours_of(dated)
    # The 30th of February is a day of March.
    months = (FIRST_DAY + hours // 24).astype("datetime64[M]").astype(np.int64) % 12 + 1
    return np.where(there & (months == dated["mnth"]), hours, NO_HOUR)
