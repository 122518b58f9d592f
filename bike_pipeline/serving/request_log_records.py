"""The records of the request log: TFRecords with a PredictionLog a request, which TensorFlow's tools read.

Requests of one row to the same signature differ in a few bytes, always the same ones: these are put into copies of one
record, those of many requests at once. All other records are written by the protocol buffers' library alone.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from bike_pipeline.serving.protos import prediction_log_pb2
from bike_pipeline.serving.server import tensors

if TYPE_CHECKING:
    from bike_pipeline.serving.request_log import Entry

Types = tuple[tuple[str, int], ...]
# Model, version, signature and its inputs; and of which share of the requests it is.
Asked = tuple[str, int, str, Types, float]
_Bytes = npt.NDArray[np.uint8]
_NANOSECONDS = 1_000_000_000
# Seconds since 1970 that take five bytes, of 1978 to 3058; and some that differ from the first in each of these.
_SECONDS, _SECONDS_END, _OTHER_SECONDS = 1 << 28, 1 << 35, 0x2020_4081
_SEVEN_BITS, _GO_ON = np.array([0, 7, 14, 21, 28]), np.array([128, 128, 128, 128, 0])
# Whole numbers that take one byte.
_SMALL_END = 128
# A float32 without a byte that is zero.
_OTHER_FLOAT = np.frombuffer(b"\1\1\1\1", np.float32)[0].item()
# Bytes before and after the content: its length with a checksum, and its checksum.
_HEAD, _FOOT = 12, 4


def records(entries: Sequence[Entry]) -> bytes:
    """Return the record of each request in turn, none of one whose inputs are not kept."""
    written, alike = [b""] * len(entries), dict[Any, list[int]]()
    for place, one in enumerate(entries):
        if type(one.columns) is tuple:
            layout = tuple([of[:3] for of in one.outputs])
            alike.setdefault((one.model, id(one.about), one.sampling_rate, layout), []).append(place)
        elif one.columns is not None:
            written[place] = _record(one)
    for (*_, layout), places in alike.items():
        for place, record in zip(places, _of_alike([entries[place] for place in places], layout), strict=True):
            written[place] = record
    return b"".join(written)


def _of_alike(entries: Sequence[Entry], layout: tuple[Any, ...]) -> list[bytes]:
    """Return the records of requests of one row to the same signature, with outputs of the same names and types."""
    form = _form(_asked(entries[0]), layout)
    if form is None:
        return [_record(one) for one in entries]
    record, places, is_float = form
    inputs = np.array([one.columns for one in entries], np.float64)
    seconds, whole = np.array([one.began for one in entries]) // _NANOSECONDS, inputs[:, ~is_float]
    fits = ((whole >= 0) & (whole < _SMALL_END)).all(axis=1) & (seconds >= _SECONDS) & (seconds < _SECONDS_END)
    answers = b"".join([output[3] for one in entries for output in one.outputs])
    with np.errstate(over="ignore", invalid="ignore"):
        parts: list[npt.NDArray[Any]] = [
            inputs[:, is_float].astype("<f4", order="C").view(np.uint8),
            whole.astype(np.uint8),
            (seconds[:, None] >> _SEVEN_BITS & 127 | _GO_ON).astype(np.uint8),
            np.frombuffer(answers, np.uint8).reshape(len(entries), -1),
        ]
    rows, size = np.tile(record, (len(entries), 1)), len(record)
    rows[:, places] = np.concatenate(parts, axis=1)
    content = rows.tobytes()
    plain = [google_crc32c.value(content[at + _HEAD : at + size - _FOOT]) for at in range(0, len(content), size)]
    rows[:, -_FOOT:] = _masked(plain).view(np.uint8).reshape(-1, _FOOT)
    content = rows.tobytes()
    return [content[at * size : (at + 1) * size] if fit else _record(entries[at]) for at, fit in enumerate(fits)]


@functools.lru_cache(64)
def _form(asked: Asked, layout: tuple[Any, ...]) -> tuple[_Bytes, npt.NDArray[np.int64], npt.NDArray[np.bool_]] | None:
    """Return a record of one row, (bytes,); None where inputs or outputs have types whose bytes are not these.

    And which of its bytes differ from request to request: of floats, of whole numbers, of the second and of outputs;
    and which inputs are floats, (inputs,).
    """
    kinds = [kind for _, kind in asked[3]]
    is_float = np.array(kinds) == tensors.FLOAT
    if not {tensors.FLOAT, tensors.INT64}.issuperset(kinds) or any(
        np.dtype(kind) != np.float32 for _, kind, _ in layout
    ):
        return None
    last, sizes = len(kinds), [4 * math.prod(shape) for _, _, shape in layout]

    def written(other: int = -1) -> _Bytes:
        """Return the content, with other bytes for an input, the second or an output."""
        columns = [[(_OTHER_FLOAT if is_float[at] else 1) if at == other else 0] for at in range(last)]
        answers = [(*one, bytes([last + 1 + at == other]) * sizes[at]) for at, one in enumerate(layout)]
        return np.frombuffer(_content(asked, columns, _OTHER_SECONDS if other == last else _SECONDS, answers), np.uint8)

    plain = written()
    order = [
        *np.flatnonzero(is_float).tolist(),
        *np.flatnonzero(~is_float).tolist(),
        *range(last, last + 1 + len(sizes)),
    ]
    places = [np.flatnonzero(plain != written(at)) for at in order]
    if sum(map(len, places)) != sum(4 if kind == tensors.FLOAT else 1 for kind in kinds) + len(_GO_ON) + sum(sizes):
        return None
    return np.frombuffer(_framed(plain.tobytes()), np.uint8), np.concatenate(places) + _HEAD, is_float


def _asked(one: Entry) -> Asked:
    assert one.about is not None
    return one.model, one.about.version, one.about.signature, one.about.types, one.sampling_rate


def _record(one: Entry) -> bytes:
    assert one.columns is not None
    columns = [[value] for value in one.columns] if type(one.columns) is tuple else one.columns
    return _framed(_content(_asked(one), columns, one.began // _NANOSECONDS, one.outputs))


@functools.lru_cache(64)
def _log_of(model: str, version: int, signature: str, types: Types, rate: float) -> tuple[Any, list[Any]]:
    """Return a PredictionLog that is filled again and again, and of each input how many values it has, and these."""
    log = prediction_log_pb2.PredictionLog()
    log.log_metadata.sampling_config.sampling_rate = rate
    for spec in (log.predict_log.request.model_spec, log.log_metadata.model_spec):
        spec.name, spec.version.value, spec.signature_name = model, version, signature
    return log, [tensors.column_of(log.predict_log.request.inputs[name], kind) for name, kind in types]


def _content(asked: Asked, columns: Sequence[Any], seconds: int, outputs: Sequence[Any]) -> bytes:
    log, fields = _log_of(*asked)
    for (length, values), column in zip(fields, columns, strict=True):
        length.size = len(column)
        values[:] = column if isinstance(column, list) else column.tolist()
    log.log_metadata.timestamp_secs = seconds
    response = log.predict_log.response
    response.Clear()
    for name, kind, shape, held in outputs:
        tensors.fill(response.outputs[name], np.frombuffer(held, kind).reshape(shape))
    content: bytes = log.SerializeToString()
    return content


def _framed(content: bytes) -> bytes:
    """Return a TFRecord: length, its checksum, the content, its checksum (tensorflow/core/lib/io/record_writer.h)."""
    head = len(content).to_bytes(8, "little")
    of_head, of_content = _masked([google_crc32c.value(head), google_crc32c.value(content)])
    return b"".join((head, of_head.tobytes(), content, of_content.tobytes()))


def _masked(plain: Sequence[int]) -> npt.NDArray[np.uint32]:
    # A checksum of what holds checksums is weak.
    found = np.array(plain, np.uint32)
    return ((found >> np.uint32(15) | found << np.uint32(17)) + np.uint32(0xA282EAD8)).astype(np.uint32)
