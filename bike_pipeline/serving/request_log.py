"""The request log: what a line says, and the files that lines and records go to.

A line is one asked row in the words of the Elastic Common Schema (ECS 8.11), its own fields below `bike`. Beside each
file of lines stands one of TFRecords with a PredictionLog a request, which TensorFlow's tools read. Nothing of a
request's headers is in either, and of one that was refused only its code.
"""

from __future__ import annotations

import functools
import itertools
import os
import pickle
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from bike_pipeline import features
from bike_pipeline.modeling.feedback import GROUPED_BY, quantiles_around
from bike_pipeline.serving.protos import example_pb2
from bike_pipeline.serving.request_log_files import Place, files_of
from bike_pipeline.serving.request_log_records import Types, records
from bike_pipeline.serving.server import tensors
from bike_pipeline.version import __version__

# Raised whenever a line of the new form cannot be read by who reads those of the old.
SCHEMA = 2
DATASET = "bike_pipeline.requests"
ECS_VERSION = "8.11.0"
OK = "OK"
# Bytes of a length, before each batch and each answer to it; a batch has one more, 1 if others wait behind it.
HEAD = 4
# Seconds between so many entries, written at once. A pause takes more of the processor than an entry does, and
# without any the 99th percentile of the answers was 2.7 times that without a log.
_PAUSE, _AT_ONCE = 0.0002, 32
_NAMES = frozenset(feature.name for feature in features.MODEL_INPUTS)
_ANSWERS = tuple(answer.output for answer in features.ANSWERS.values())
_GROUPED_BY = frozenset(GROUPED_BY)
_NOTHING: Iterator[bytes] = itertools.repeat(b"")
Rows = list[dict[str, Any]]


class About(NamedTuple):
    """What requests have in common that a version answered with the same signature.

    Attributes:
        version: the version that answered.
        signature: the signature that was asked.
        backend: the format that answered.
        types: name and number in `tensorflow.DataType` of each input.
        quantiles: those around an answer, (groups, quantiles), rising; None if the version knows none.
    """

    version: int
    signature: str
    backend: str
    types: Types
    quantiles: npt.NDArray[Any] | None


class Entry(NamedTuple):
    """One request.

    Attributes:
        began: when it came, nanoseconds since 1970 UTC.
        took: until it was answered, nanoseconds.
        request_id: the client's own, or one that was made for it.
        protocol: "http" or "grpc".
        model: the model's name.
        code: name of the canonical code that it was answered with.
        sampling_rate: share of the requests that were kept when it came: it stands for one divided by that.
        about: who answered; None if nobody did.
        columns: a column an input, or for a lone plain row its numbers alone; None where they are not kept.
        outputs: name, type, shape and bytes of each that consists of numbers: arrays themselves are dear to hand over.
    """

    began: int
    took: int
    request_id: str
    protocol: str
    model: str
    code: str
    sampling_rate: float
    about: About | None
    columns: Sequence[Any] | None
    outputs: tuple[tuple[str, str, tuple[int, ...], bytes], ...]


def write(message: bytes, place: Place, pause: Callable[[], None] = lambda: None) -> str:
    """Write entries, pickled by the server whose process this is (see `unpacked`), to the files of a place.

    Either all of them are there then, or none, and what is returned says why. Between some of them it pauses, so that
    whoever answers requests on the same processor never waits for more than these.
    """
    entries, written, framed = unpacked(message), list[bytes](), list[bytes]()
    while some := list(itertools.islice(entries, _AT_ONCE)):
        written.append(lines(some))
        framed.append(records(some))
        pause()
    try:
        files_of(place).add(b"".join(written), b"".join(framed))
    except OSError as error:
        return f"{place.folder}: {(error.strerror or str(error)).lower()}"
    return ""


def unpacked(message: bytes) -> Iterator[Entry]:
    """Yield the entries of a message.

    It is a pickled pair: the arguments of `About` by a number, None for a request without an answer, and a list of
    entries, each pickled for itself: the first fields of `Entry`, that number, and the fields after it.
    """
    common, entries = pickle.loads(message)  # noqa: S301 - of our own server
    abouts = {number: about and About(*about) for number, about in common.items()}
    for content in entries:
        (began, took, request_id, protocol, model, code, rate), number, columns, outputs = pickle.loads(content)  # noqa: S301
        yield Entry(began, took, request_id, protocol, model, code, rate, abouts[number], columns, outputs)


def lines(entries: Sequence[Entry]) -> bytes:
    """Return a line a row of each request in turn; one alone where no row is told."""
    rows, cells = [_rows(one) for one in entries], list[bytes]()
    for one, told, answer in zip(entries, rows, _answers(entries, rows), strict=True):
        asked = one.about[:3] if one.about else ()
        head, event, slash, duration, request, at_row, end = _between(
            one.protocol, one.model, one.code, one.sampling_rate, asked
        )
        second, fraction = divmod(one.began, 1_000_000_000)
        at = b"%b.%06dZ" % (_second(second), fraction // 1000)
        name, took = orjson.dumps(one.request_id)[1:-1], b"%d" % one.took
        for number, row in enumerate(told or [{}]):
            place, given = b"%d" % number, b',"features":' + orjson.dumps(row) if row else b""
            cells += (head, at, event, name, slash, place, duration, took, request, name, at_row, place)
            cells += (given, next(answer), end)
    return b"".join(cells)


@functools.lru_cache(64)
def _between(protocol: str, model: str, code: str, rate: float, asked: tuple[Any, ...]) -> list[bytes]:
    """Return the parts of a line that are the same for many, between which time, id and numbers go."""
    # In a text a zero byte is escaped.
    text, number = orjson.Fragment(b'"\0"'), orjson.Fragment(b"\0")
    event = {"dataset": DATASET, "kind": "event", "outcome": "success" if code == OK else "failure"}
    line = {
        "@timestamp": text,
        "ecs": {"version": ECS_VERSION},
        "event": {**event, "id": orjson.Fragment(b'"\0/\0"'), "duration": number},
        "http": {"request": {"id": text}},
        "network": {"protocol": protocol},
        "service": {"name": "bike-pipeline", "version": __version__},
        **({} if code == OK else {"error": {"code": code}}),
        "bike": {
            "schema": SCHEMA,
            "sampling_rate": rate,
            "model": model,
            **dict(zip(About._fields, asked, strict=False)),
            "row": number,
        },
    }
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE).split(b"\0")


@functools.lru_cache(64)
def _second(second: int) -> bytes:
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}".encode()


def _rows(one: Entry) -> Rows:
    """Return the rows of a request as the log tells them; nothing where it tells none."""
    about, columns = one.about, one.columns
    if about is None or columns is None:
        return []
    # A lone plain row is a tuple of its numbers; else there is a column an input.
    if type(columns) is tuple:
        rows = [{name: value for (name, _), value in zip(about.types, columns, strict=True)}]
    elif about.types[0][1] == tensors.STRING:
        return _of_examples(columns[0]) if len(about.types) == 1 else []
    else:
        lists = [one if isinstance(one, list) else one.tolist() for one in columns]
        names = [name for name, _ in about.types]
        rows = [dict(zip(names, row, strict=True)) for row in zip(*lists, strict=True)]
    if rows and not rows[0].keys() <= _NAMES:
        rows = [{name: value for name, value in row.items() if name in _NAMES} for row in rows]
    return rows if rows and rows[0] else []


def _of_examples(column: Sequence[bytes]) -> Rows:
    """Return the features of serialized tf.Examples; nothing where one of them is none."""
    rows = []
    for content in column:
        try:
            found = example_pb2.Example.FromString(content).features.feature
        except Exception:  # noqa: BLE001 - protobuf's DecodeError, whose place differs between its releases
            return []
        lists = {name: getattr(found[name], found[name].WhichOneof("kind") or "int64_list").value for name in found}
        rows.append({name: one[0] for name, one in lists.items() if len(one) == 1 and name in _NAMES})
    return rows


def _answers(entries: Sequence[Entry], rows: Sequence[Rows]) -> list[Iterator[bytes]]:
    """Return of each request what yields a row's fields with answer and interval, for one request after another.

    There is an interval, of lower and upper quantile, where the version knows them.
    """
    found, alike = [_NOTHING] * len(entries), dict[Any, tuple[Any, list[int], list[bytes]]]()
    for place, (one, told) in enumerate(zip(entries, rows, strict=True)):
        answered = next((output for name in _ANSWERS for output in one.outputs if output[0] == name), None)
        if not told or answered is None or answered[2] != (len(told),):
            continue
        table = one.about and one.about.quantiles
        if table is not None and not all(row.keys() >= _GROUPED_BY for row in told):
            table = None
        _, places, contents = alike.setdefault((id(table), answered[1]), (table, [], []))
        places.append(place)
        contents.append(answered[3])
    for (_, kind), (table, places, contents) in alike.items():
        answers = np.frombuffer(b"".join(contents), kind)
        form, numbers = b',"answer":%b', [answers]
        if table is not None:
            columns = {name: np.array([row[name] for place in places for row in rows[place]]) for name in GROUPED_BY}
            around = quantiles_around(answers.astype(np.float32), columns, table)
            form += b',"interval":{"lower":%b,"upper":%b}'
            numbers += [np.ascontiguousarray(around[:, at]) for at in (0, -1)]
        # As float32 they have fewer digits.
        texts = [orjson.dumps(one, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",") for one in numbers]
        fields = map(form.__mod__, zip(*texts, strict=True))
        for place in places:
            found[place] = fields
    return found


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
