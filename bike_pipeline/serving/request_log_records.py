"""The records of the request log: TFRecords with a PredictionLog a request, which TensorFlow's tools read.

Requests of one row to the same signature differ in a few bytes, always the same ones: these are put into copies of one
record, those of many requests at once. All other records are written by the protocol buffers' library alone.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import google_crc32c
import numpy as np
import numpy.typing as npt

from bike_pipeline.serving.protos import prediction_log_pb2
from bike_pipeline.serving.server import tensors

if TYPE_CHECKING:
    from bike_pipeline.serving.request_log import Entry

Types = tuple[tuple[str, int], ...]
# Name, numpy type and shape of each output.
Layout = tuple[tuple[str, str, tuple[int, ...]], ...]
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


class _Form(NamedTuple):
    """The record of requests that are alike.

    Attributes:
        record: its bytes, (bytes,).
        places: which of them differ: of floats, of whole numbers, of the second, of outputs, (differing,).
        floats: which inputs are floats, the others being whole numbers, (inputs,).
    """

    record: _Bytes
    places: npt.NDArray[np.int64]
    floats: npt.NDArray[np.bool_]


def records(entries: Sequence[Entry]) -> bytes:
    """Return the record of each request in turn, none of one whose inputs are not kept."""
    written = [b""] * len(entries)
    alike: dict[Any, list[int]] = {}
    for place, one in enumerate(entries):
        if type(one.columns) is tuple:
            layout = tuple([output[:3] for output in one.outputs])
            alike.setdefault((one.model, id(one.about), layout), []).append(place)
        elif one.columns is not None:
            written[place] = _record(one)
    for (_, _, layout), places in alike.items():
        for place, record in zip(places, _of_alike([entries[place] for place in places], layout), strict=True):
            written[place] = record
    return b"".join(written)


def _of_alike(entries: Sequence[Entry], layout: Layout) -> list[bytes]:
    """Return the records of requests of one row to the same signature."""
    first, about = entries[0], entries[0].about
    assert about is not None
    form = _form(first.model, about.version, about.signature, about.types, layout)
    if form is None:
        return [_record(one) for one in entries]
    inputs = np.array([one.columns for one in entries], np.float64)
    seconds = np.array([one.began for one in entries]) // _NANOSECONDS
    whole = inputs[:, ~form.floats]
    fits = ((whole >= 0) & (whole < _SMALL_END)).all(axis=1) & (seconds >= _SECONDS) & (seconds < _SECONDS_END)
    answers = b"".join([output[3] for one in entries for output in one.outputs])
    with np.errstate(over="ignore", invalid="ignore"):
        parts: list[npt.NDArray[Any]] = [
            inputs[:, form.floats].astype("<f4", order="C").view(np.uint8),
            whole.astype(np.uint8),
            (seconds[:, None] >> _SEVEN_BITS & 127 | _GO_ON).astype(np.uint8),
            np.frombuffer(answers, np.uint8).reshape(len(entries), -1),
        ]
    rows, size = np.tile(form.record, (len(entries), 1)), len(form.record)
    rows[:, form.places] = np.concatenate(parts, axis=1)
    unchecked = rows.tobytes()
    plain = [google_crc32c.value(unchecked[at + _HEAD : at + size - _FOOT]) for at in range(0, len(unchecked), size)]
    rows[:, -_FOOT:] = _masked(np.array(plain, np.uint32)).view(np.uint8).reshape(-1, _FOOT)
    content = rows.tobytes()
    found = [content[at : at + size] for at in range(0, len(content), size)]
    for place in np.flatnonzero(~fits).tolist():
        found[place] = _record(entries[place])
    return found


@functools.lru_cache(64)
def _form(model: str, version: int, signature: str, types: Types, layout: Layout) -> _Form | None:
    """Return the record of requests of one row; None where inputs or outputs have types whose bytes are not these."""
    floats = np.array([kind == tensors.FLOAT for _, kind in types])
    if any(kind not in (tensors.FLOAT, tensors.INT64) for _, kind in types) or any(one[1] != "<f4" for one in layout):
        return None
    inputs = [*np.flatnonzero(floats).tolist(), *np.flatnonzero(~floats).tolist()]
    sizes = [4 * math.prod(shape) for _, _, shape in layout]
    second, outputs = len(types), range(len(types) + 1, len(types) + 1 + len(layout))

    def written(other: int = -1) -> _Bytes:
        """Return the content with other bytes for an input, the second or an output."""
        columns = [[(_OTHER_FLOAT if floats[at] else 1) if at == other else 0] for at in range(len(types))]
        answers = [(*one, bytes([at == other]) * size) for at, one, size in zip(outputs, layout, sizes, strict=True)]
        seconds = _OTHER_SECONDS if other == second else _SECONDS
        return np.frombuffer(_content(model, version, signature, types, columns, seconds, answers), np.uint8)

    plain = written()
    changed = [np.flatnonzero(plain != written(at)) for at in (*inputs, second, *outputs)]
    expected = [4] * int(floats.sum()) + [1] * int((~floats).sum()) + [len(_GO_ON)] + sizes
    if [len(one) for one in changed] != expected:
        return None
    return _Form(np.frombuffer(_framed(plain.tobytes()), np.uint8), np.concatenate(changed) + _HEAD, floats)


def _record(one: Entry) -> bytes:
    about = one.about
    assert about is not None
    assert one.columns is not None
    seconds = one.began // _NANOSECONDS
    columns = [[value] for value in one.columns] if type(one.columns) is tuple else one.columns
    return _framed(_content(one.model, about.version, about.signature, about.types, columns, seconds, one.outputs))


@functools.lru_cache(64)
def _log_of(model: str, version: int, signature: str, types: Types) -> tuple[Any, list[Any]]:
    """Return a PredictionLog that is filled again and again, and of each input how many values it has, and these."""
    log = prediction_log_pb2.PredictionLog()
    for spec in (log.predict_log.request.model_spec, log.log_metadata.model_spec):
        spec.name, spec.version.value, spec.signature_name = model, version, signature
    return log, [tensors.column_of(log.predict_log.request.inputs[name], kind) for name, kind in types]


def _content(
    model: str, version: int, signature: str, types: Types, columns: Sequence[Any], seconds: int, outputs: Sequence[Any]
) -> bytes:
    """Return a PredictionLog."""
    log, fields = _log_of(model, version, signature, types)
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
    of_head, of_content = _masked(np.array([google_crc32c.value(head), google_crc32c.value(content)], np.uint32))
    return b"".join((head, of_head.tobytes(), content, of_content.tobytes()))


def _masked(plain: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    # A checksum of what holds checksums is weak.
    return ((plain >> np.uint32(15) | plain << np.uint32(17)) + np.uint32(0xA282EAD8)).astype(np.uint32)
