"""The request log: what a line says, and the files that lines and records go to.

A line is one asked row in the words of the Elastic Common Schema (ECS 8.11), its own fields below `bike`. Beside each
file of lines stands one of TFRecords with a PredictionLog a request, which TensorFlow's tools read. Nothing of a
request's headers is in either, and of one that was refused only its code.
"""

from __future__ import annotations

import functools
import os
import pickle
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
import numpy.typing as npt
import orjson

from bike_pipeline import features
from bike_pipeline.modeling.feedback import GROUPED_BY, quantiles_around
from bike_pipeline.serving.protos import example_pb2, prediction_log_pb2
from bike_pipeline.serving.request_log_files import Place, files_of
from bike_pipeline.serving.server import tensors
from bike_pipeline.version import __version__

# Raised whenever a line of the new form cannot be read by who reads those of the old.
SCHEMA = 1
DATASET = "bike_pipeline.requests"
ECS_VERSION = "8.11.0"
OK = "OK"
# Bytes of a length, before each batch and each answer to it; a batch has one more, 1 if others wait behind it.
HEAD = 4
# Seconds. Without pauses the 99th percentile of the answers was 2.7 times that without a log, with them 1.3 times.
_PAUSE = 0.0002
# Entries that are read without a pause, which takes some microseconds each.
_READ_AT_ONCE = 8
_NAMES = frozenset(feature.name for feature in features.MODEL_INPUTS)
_ANSWERS = tuple(answer.output for answer in features.ANSWERS.values())
_SERVICE = {"name": "bike-pipeline", "version": __version__}


class Asked(NamedTuple):
    """What a request asked of which version, and what that answered.

    Attributes:
        version: the version that answered.
        signature: the signature that was asked.
        backend: the format that answered.
        types: name and number in `tensorflow.DataType` of each input, in the order of `columns`.
        quantiles: those around an answer, (groups, quantiles), rising; None if the version knows none.
        columns: a column an input, or for a lone plain row its numbers alone; None where they are not kept.
        outputs: name, type, shape and bytes of each that consists of numbers: arrays themselves are dear to hand over.
    """

    version: int
    signature: str
    backend: str
    types: tuple[tuple[str, int], ...]
    quantiles: npt.NDArray[Any] | None
    columns: Sequence[Any] | None
    outputs: tuple[tuple[str, str, tuple[int, ...], bytes], ...]


class Entry(NamedTuple):
    """One request.

    Attributes:
        began: when it came, nanoseconds since 1970 UTC.
        took: until it was answered, nanoseconds.
        request_id: the client's own, or one that was made for it.
        protocol: "http" or "grpc".
        model: the model's name.
        code: name of the canonical code that it was answered with.
        asked: None if it was not answered.
    """

    began: int
    took: int
    request_id: str
    protocol: str
    model: str
    code: str
    asked: Asked | None


def write(message: bytes, place: Place, pause: Callable[[], None] = lambda: None) -> str:
    """Write entries, pickled by the server whose process this is (see `unpacked`), to the files of a place.

    Either all of them are there then, or none, and what is returned says why. After each it pauses, so that whoever
    answers requests on the same processor never waits for more than a few entries.
    """
    kept = []
    for number, entry in enumerate(unpacked(message)):
        if number % _READ_AT_ONCE == 0:
            pause()
        kept.append(_Kept(entry))
    pause()
    _add_intervals(kept)
    lines, records = list[bytes](), list[bytes]()
    for one in kept:
        pause()
        lines += one.lines()
        records += [_record(one)] if one.columns else []
    pause()
    try:
        files_of(place).add(b"".join(lines), b"".join(records))
    except OSError as error:
        return f"{place.folder}: {(error.strerror or str(error)).lower()}"
    return ""


def unpacked(message: bytes) -> Iterator[Entry]:
    """Yield the entries of a message.

    It is a pickled pair: the first fields of `Asked` by a number, None for a request without an answer, and a list of
    entries, each pickled for itself: the other fields of `Entry`, that number, and the other fields of `Asked`.
    """
    common, entries = pickle.loads(message)  # noqa: S301 - of our own server
    for content in entries:
        entry, number, *asked = pickle.loads(content)  # noqa: S301
        about = common[number]
        yield Entry._make((*entry, about and Asked(*about, *asked)))


class _Kept:
    """An entry with its columns as lists, what was answered, and its rows as the log tells them."""

    def __init__(self, entry: Entry) -> None:
        self.entry, asked = entry, entry.asked
        self.columns: list[list[Any]] = []
        self.outputs: dict[str, npt.NDArray[Any]] = {}
        self.rows: list[dict[str, Any]] = []
        self.answers: list[np.float32] = []
        self.interval: list[tuple[np.float32, np.float32]] = []
        if asked is None or asked.columns is None:
            return
        self.outputs = {name: np.frombuffer(held, kind).reshape(shape) for name, kind, shape, held in asked.outputs}
        # A lone plain row is a tuple of its numbers; else there is a column an input.
        if isinstance(asked.columns, tuple):
            self.columns = [[value] for value in asked.columns]
        else:
            self.columns = [one if isinstance(one, list) else one.tolist() for one in asked.columns]
        self.rows = self._rows(asked.types)
        answered = next((self.outputs[name] for name in _ANSWERS if name in self.outputs), None)
        if answered is not None and answered.shape == (len(self.rows),):
            # As float32 they have fewer digits.
            self.answers = list(answered)

    def _rows(self, types: tuple[tuple[str, int], ...]) -> list[dict[str, Any]]:
        if types[0][1] == tensors.STRING:
            return self._of_examples() if len(types) == 1 else []
        names = [name for name, _ in types]
        rows = [dict(zip(names, row, strict=True)) for row in zip(*self.columns, strict=True)]
        if _NAMES.issuperset(names):
            return rows
        told = _NAMES.intersection(names)
        return [{name: row[name] for name in names if name in told} for row in rows] if told else []

    def _of_examples(self) -> list[dict[str, Any]]:
        """Return the features of serialized tf.Examples; nothing where one of them is none."""
        rows = []
        for content in self.columns[0]:
            try:
                found = example_pb2.Example.FromString(content).features.feature
            except Exception:  # noqa: BLE001 - protobuf's DecodeError, whose place differs between its releases
                return []
            lists = {name: getattr(found[name], found[name].WhichOneof("kind") or "int64_list").value for name in found}
            rows.append({name: one[0] for name, one in lists.items() if len(one) == 1 and name in _NAMES})
        return rows

    def lines(self) -> Iterator[bytes]:
        """Yield a line a row; one alone where no row is told."""
        entry, asked = self.entry, self.entry.asked
        at = datetime.fromtimestamp(entry.began // 1_000_000_000, UTC)
        success = entry.code == OK
        about: dict[str, Any] = {"schema": SCHEMA, "model": entry.model}
        if asked is not None:
            about |= {"version": asked.version, "signature": asked.signature, "backend": asked.backend}
        line: dict[str, Any] = {
            "@timestamp": f"{at:%Y-%m-%dT%H:%M:%S}.{entry.began // 1000 % 1_000_000:06d}Z",
            "ecs": {"version": ECS_VERSION},
            "event": {"dataset": DATASET, "kind": "event", "outcome": "success" if success else "failure"},
            "http": {"request": {"id": entry.request_id}},
            "network": {"protocol": entry.protocol},
            "service": _SERVICE,
        }
        if not success:
            line["error"] = {"code": entry.code}
        for number, row in enumerate(self.rows or [{}]):
            line["event"] |= {"id": f"{entry.request_id}/{number}", "duration": entry.took}
            line["bike"] = {**about, "row": number}
            if row:
                line["bike"]["features"] = row
            if self.answers:
                line["bike"]["answer"] = self.answers[number]
            if self.interval:
                lower, upper = self.interval[number]
                line["bike"]["interval"] = {"lower": lower, "upper": upper}
            yield orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)


def _add_intervals(kept: Sequence[_Kept]) -> None:
    """Add lower and upper quantile to each answer whose version knows them, those of a version in one call."""
    tables: dict[int, tuple[Any, list[_Kept]]] = {}
    for one in kept:
        table = one.entry.asked.quantiles if one.entry.asked else None
        if table is not None and one.answers and all(name in row for row in one.rows for name in GROUPED_BY):
            tables.setdefault(id(table), (table, []))[1].append(one)
    for table, ones in tables.values():
        columns = {name: np.array([row[name] for one in ones for row in one.rows]) for name in GROUPED_BY}
        answers = np.array([answer for one in ones for answer in one.answers], np.float32)
        around = quantiles_around(answers, columns, table)[:, [0, -1]]
        pairs = iter(zip(*around.T, strict=True))
        for one in ones:
            one.interval = [next(pairs) for _ in one.rows]


@functools.lru_cache(64)
def _log_of(model: str, version: int, signature: str, types: tuple[tuple[str, int], ...]) -> tuple[Any, list[Any]]:
    """Return a PredictionLog that is filled again and again, and of each input how many values it has, and these."""
    log = prediction_log_pb2.PredictionLog()
    for spec in (log.predict_log.request.model_spec, log.log_metadata.model_spec):
        spec.name, spec.version.value, spec.signature_name = model, version, signature
    return log, [tensors.column_of(log.predict_log.request.inputs[name], kind) for name, kind in types]


def _record(one: _Kept) -> bytes:
    """Return the TFRecord of a request: length, its checksum, the content, its checksum (tensorflow/core/lib/io)."""
    entry, asked = one.entry, one.entry.asked
    assert asked is not None
    log, fields = _log_of(entry.model, asked.version, asked.signature, asked.types)
    for (length, values), column in zip(fields, one.columns, strict=True):
        length.size = len(column)
        values[:] = column
    log.log_metadata.timestamp_secs = entry.began // 1_000_000_000
    response = log.predict_log.response
    response.Clear()
    for name, output in one.outputs.items():
        tensors.fill(response.outputs[name], output)
    content: bytes = log.SerializeToString()
    head = len(content).to_bytes(8, "little")
    return head + _checksum(head) + content + _checksum(content)


def _checksum(content: bytes) -> bytes:
    # Masked, as a checksum of what holds checksums is weak.
    plain = int(google_crc32c.value(content))
    masked: int = ((plain >> 15 | plain << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return masked.to_bytes(4, "little")


def main() -> None:
    """Write batches from standard input to the place that the arguments name; tell of each why it could not be."""
    # The terminal's Ctrl-C is for the server, which ends this process when it is done. A session of its own would keep
    # it away, too, but between sessions Linux shares processors as equals (sched_autogroup), whatever their priority.
    os.setpgrp()
    place = Place(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    # Whoever answers, and whoever asks from the same machine, goes before.
    os.nice(19)
    batches, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    # Whatever else is printed belongs to the log.
    os.dup2(2, 1)
    while len(head := batches.read(HEAD + 1)) == HEAD + 1:
        message = batches.read(int.from_bytes(head[:HEAD], "little"))
        try:
            problem = write(message, place) if head[HEAD] else write(message, place, lambda: time.sleep(_PAUSE))
        except Exception as error:  # noqa: BLE001 - one batch that is lost is better than all that follow
            traceback.print_exc()
            problem = type(error).__name__
        content = problem.encode()
        answers.write(len(content).to_bytes(HEAD, "little") + content)
        answers.flush()


if __name__ == "__main__":
    main()
