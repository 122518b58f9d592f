"""What is written of many requests at once equals what the libraries alone write of one after the other."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from google.protobuf.message import DecodeError

from bike_pipeline import features
from bike_pipeline.modeling.feedback import GROUPED_BY, GROUPS, quantiles_around
from bike_pipeline.serving import request_log, request_log_files, request_log_records
from bike_pipeline.serving.protos import example_pb2, prediction_log_pb2, types_pb2
from bike_pipeline.serving.request_log import About, Entry
from bike_pipeline.serving.request_log_files import Place
from bike_pipeline.serving.server import tensors
from bike_pipeline.version import __version__
from tests.monitoring.logged import MODEL, NOW, packed

NOON = int(NOW.timestamp()) * 1_000_000_000
KINDS = {"int": types_pb2.DT_INT64, "float": types_pb2.DT_FLOAT}
TYPES = tuple((f.name, KINDS[f.kind]) for f in sorted(features.MODEL_INPUTS, key=lambda f: f.name))
REQUIRED = tuple(one for one in TYPES if features.BY_NAME[one[0]] in features.REQUIRED_INPUTS)
MANY = 800
FLOATS = [0.0, -0.0, 0.1, 1.0, -273.15, 1e-45, 1e-60, 3e38, 1e300, float("nan"), float("inf"), float("-inf"), 7]
WHOLE = [0, 1, 23, 127, 128, 300, -1, 1 << 40, 1 << 62, -(1 << 62)]
ANSWERS = [0.0, -0.0, 0.1, 187.25, 16_777_216.0, 3e38, float("nan"), float("inf"), -2.5]
# What a client may send, what it may not, and what the server itself makes.
NAMES = ["a", "Root=1-67891233", "ünï", "two words", 'quo"te', "back\\slash", "line\nbreak", "zero\0byte", "雨", "%b%d"]
BEGAN = [NOON, NOON + 999_999_999, NOON - 1, 1_000, (1 << 28) * 1_000_000_000 - 1, (1 << 28) * 1_000_000_000]


@pytest.fixture(autouse=True)
def _own_files():
    yield
    request_log_files.files_of.cache_clear()


def example_of(row: dict[str, Any]) -> bytes:
    example = example_pb2.Example()
    for name, value in row.items():
        if isinstance(value, int):
            example.features.feature[name].int64_list.value.append(value)
        else:
            example.features.feature[name].float_list.value.append(value)
    return bytes(example.SerializeToString())


def abouts(generator: np.random.Generator) -> list[About]:
    table = np.sort(generator.normal(size=(GROUPS, 3)), axis=1)
    unknown = np.full((GROUPS, 3), np.nan)
    return [
        About(7, "serving_default", "tflite_float32", REQUIRED, table),
        About(8, "serving_default", "tflite_float32", REQUIRED, unknown),
        About(7, "serving_all_inputs", "saved_model", TYPES, table),
        About(1, "few", "onnx", (("hr", types_pb2.DT_INT64), ("temp", types_pb2.DT_FLOAT)), table),
        About(1, "others", "onnx", (("day", types_pb2.DT_INT64), ("level", types_pb2.DT_FLOAT)), None),
        About(1, "strangers", "onnx", (("level", types_pb2.DT_FLOAT), ("place", types_pb2.DT_INT64)), table),
        About(1, "double", "onnx", (("hr", types_pb2.DT_INT32), ("temp", types_pb2.DT_DOUBLE)), None),
        About(7, "serving_examples", "saved_model", (("examples", types_pb2.DT_STRING),), table),
        About(1, "texts", "saved_model", (("hr", types_pb2.DT_INT64), ("text", types_pb2.DT_STRING))[::-1], None),
    ]


def outputs_of(generator: np.random.Generator, rows: int) -> tuple[tuple[str, str, tuple[int, ...], bytes], ...]:
    def output(name: str, kind: Any, *shape: int) -> tuple[str, str, tuple[int, ...], bytes]:
        with np.errstate(over="ignore", invalid="ignore"):
            values = generator.choice(ANSWERS, shape).astype(kind)
        return name, values.dtype.str, shape, values.tobytes()

    some = [
        (output("cnt", np.float32, rows),),
        (output("cnt", np.float32, rows), output("p05", np.float32, rows), output("p95", np.float32, rows)),
        (output("p05", np.float32, rows), output("cnt", np.float32, rows)),
        (output("busy_probability", np.float32, rows), output("classes", np.int64, rows)),
        (output("cnt", np.float64, rows),),
        (output("cnt", np.float16, rows), output("cpx", np.complex64, rows)),
        (output("cnt", np.int64, rows), output("flag", np.bool_, rows)),
        (output("cnt", np.float32, rows, 2),),
        (output("cnt", np.float32), output("empty", np.float32, 0)),
        (output("other", np.float32, rows),),
        (),
    ]
    return some[generator.choice(len(some), p=[0.5, *[0.05] * 10])]


def value_of(generator: np.random.Generator, kind: int, *, tame: bool) -> Any:
    if kind == types_pb2.DT_STRING:
        return [b"ab", b"\xff\0", "ü".encode()][generator.integers(3)]
    if kind in (types_pb2.DT_FLOAT, types_pb2.DT_DOUBLE):
        return float(generator.uniform()) if tame else FLOATS[generator.integers(len(FLOATS))]
    if kind == types_pb2.DT_INT32:
        return int(generator.integers(100))
    return int(generator.integers(24)) if tame else WHOLE[generator.integers(len(WHOLE))]


def entry_of(generator: np.random.Generator, number: int, all_abouts: list[About]) -> Entry:
    name = f"{number:x}" if number % 4 else f"{NAMES[generator.integers(len(NAMES))]}.{number}"
    began = NOON + number if generator.integers(10) else BEGAN[generator.integers(len(BEGAN))]
    model = [MODEL, "mödel", "unknown"][generator.choice(3, p=[0.8, 0.1, 0.1])]
    head = (began, int(generator.integers(1 << 40)), name, ["http", "grpc"][number % 2], model)
    rate = [1.0, 0.5, 0.3 / 64][number % 3]
    if not generator.integers(12):
        return Entry(*head, ["INVALID_ARGUMENT", "CANCELLED", "INTERNAL"][number % 3], rate, None, None, ())
    about = all_abouts[generator.choice(len(all_abouts), p=[0.4, *[0.075] * 8])]
    rows = int(generator.choice([1, 1, 2, 3, 17]))
    if not generator.integers(12):
        return Entry(*head, "OK", rate, about, None, ())
    tame = bool(generator.integers(2))
    columns: Any = [[value_of(generator, kind, tame=tame) for _ in range(rows)] for _, kind in about.types]
    if about.signature == "serving_examples":
        sent = [dict(zip(dict(REQUIRED), [value_of(generator, k, tame=True) for _, k in REQUIRED], strict=True))] * rows
        some = [example_of(row) for row in sent]
        some[0] = [some[0], b"\xff\xff", b"", example_of({"hr": 3, "level": 0.5})][generator.integers(4)]
        columns = [some]
    elif rows == 1 and number % 3:
        if about.signature not in ("texts", "double"):
            columns = tuple(value for (value,) in columns)
    elif number % 3 == 1 or about.signature == "double":
        kinds = [tensors.numpy_type(kind) for _, kind in about.types]
        with np.errstate(over="ignore"):
            columns = [np.array(one, kind) for one, kind in zip(columns, kinds, strict=True)]
    return Entry(*head, "OK", rate, about, columns, outputs_of(generator, rows))


def plain_rows(one: Entry) -> list[dict[str, Any]]:
    """Return the rows of a request as they are logged."""
    known = {feature.name for feature in features.MODEL_INPUTS}
    if one.about is None or one.columns is None:
        return []
    names = [name for name, _ in one.about.types]
    if names == ["examples"]:
        rows = []
        for content in one.columns[0]:
            try:
                found = example_pb2.Example.FromString(content).features.feature
            except DecodeError:
                return []
            lists = {name: [*held.int64_list.value, *held.float_list.value] for name, held in found.items()}
            rows.append({name: values[0] for name, values in lists.items() if len(values) == 1 and name in known})
        return rows
    if one.about.types[0][1] == types_pb2.DT_STRING or not known.intersection(names):
        return []
    columns = [np.array([value], object) if isinstance(one.columns, tuple) else value for value in one.columns]
    lists = [column if isinstance(column, list) else column.tolist() for column in columns]
    return [{n: v for n, v in zip(names, row, strict=True) if n in known} for row in zip(*lists, strict=True)]


def plain_lines(one: Entry) -> Iterator[bytes]:
    """Yield the lines of a request, each made of one object."""
    rows, about = plain_rows(one), one.about
    answered = next((held for name in ("cnt", "busy_probability") for held in one.outputs if held[0] == name), None)
    answers = np.frombuffer(answered[3], answered[1]) if answered and rows and answered[2] == (len(rows),) else None
    for number, row in enumerate(rows or [{}]):
        bike: dict[str, Any] = {"schema": 2, "sampling_rate": one.sampling_rate, "model": one.model}
        if about is not None:
            bike |= {"version": about.version, "signature": about.signature, "backend": about.backend}
        bike["row"] = number
        if row:
            bike["features"] = row
        if answers is not None:
            bike["answer"] = answers[number]
            if about.quantiles is not None and all(name in each for name in GROUPED_BY for each in rows):
                columns = {name: np.array([row[name]]) for name in GROUPED_BY}
                alone = answers[number : number + 1].astype(np.float32)
                ((lower, _, upper),) = quantiles_around(alone, columns, about.quantiles)
                bike["interval"] = {"lower": lower, "upper": upper}
        at = datetime.fromtimestamp(one.began // 1_000_000_000, UTC)
        outcome = "success" if one.code == "OK" else "failure"
        line = {
            "@timestamp": f"{at:%Y-%m-%dT%H:%M:%S}.{one.began // 1000 % 1_000_000:06d}Z",
            "ecs": {"version": "8.11.0"},
            "event": {
                "dataset": "bike_pipeline.requests",
                "kind": "event",
                "outcome": outcome,
                "id": f"{one.request_id}/{number}",
                "duration": one.took,
            },
            "http": {"request": {"id": one.request_id}},
            "network": {"protocol": one.protocol},
            "service": {"name": "bike-pipeline", "version": __version__},
            **({"error": {"code": one.code}} if outcome == "failure" else {}),
            "bike": bike,
        }
        yield orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)


def plain_log(one: Entry) -> Any:
    """Return the PredictionLog of a request, each field written by its name."""
    log = prediction_log_pb2.PredictionLog()
    about = one.about
    log.log_metadata.sampling_config.sampling_rate = one.sampling_rate
    for spec in (log.predict_log.request.model_spec, log.log_metadata.model_spec):
        spec.name, spec.version.value, spec.signature_name = one.model, about.version, about.signature
    log.log_metadata.timestamp_secs = one.began // 1_000_000_000
    lists = {"int64_val": types_pb2.DT_INT64, "float_val": types_pb2.DT_FLOAT, "string_val": types_pb2.DT_STRING}
    lists |= {"int_val": types_pb2.DT_INT32, "double_val": types_pb2.DT_DOUBLE}
    for (name, kind), column in zip(about.types, one.columns, strict=True):
        values = [column] if isinstance(one.columns, tuple) else column
        proto = log.predict_log.request.inputs[name]
        proto.dtype = kind
        proto.tensor_shape.dim.add().size = len(values)
        field = next(field for field, of in lists.items() if of == kind)
        getattr(proto, field).extend(values if isinstance(values, list) else values.tolist())
    # There is a response, too, where nothing in it is a number.
    log.predict_log.response.SetInParent()
    for name, kind, shape, held in one.outputs:
        tensors.fill(log.predict_log.response.outputs[name], np.frombuffer(held, kind).reshape(shape))
    return log


def of_files(folder: Path) -> tuple[list[bytes], list[bytes]]:
    """Return the lines, and the records as TensorFlow reads them, which checks each checksum."""
    import tensorflow as tf

    (path,) = folder.glob("*.jsonl")
    records = tf.data.TFRecordDataset([str(path.with_suffix(".tfrecord"))])
    return path.read_bytes().splitlines(keepends=True), [record.numpy() for record in records]


def write(folder: Path, *entries: Entry) -> tuple[list[bytes], list[bytes]]:
    assert not request_log.write(packed(*entries), Place(str(folder), 10**9, 4))
    return of_files(folder)


def same_bytes(message: Any) -> bytes:
    # With its maps in order. A number that is none is no hindrance, as it is where messages are compared.
    return bytes(message.SerializeToString(deterministic=True))


@pytest.mark.parametrize("seed", range(3))
def test_files_hold_what_is_written_of_one_request_after_the_other(tmp_path, seed):
    generator = np.random.default_rng(seed)
    all_abouts = abouts(generator)
    entries = [entry_of(generator, number, all_abouts) for number in range(MANY)]
    lines, records = write(tmp_path, *entries)
    assert lines == [line for one in entries for line in plain_lines(one)]
    logs = [same_bytes(prediction_log_pb2.PredictionLog.FromString(record)) for record in records]
    assert logs == [same_bytes(plain_log(one)) for one in entries if one.columns is not None]
    # The comparison is about all of it.
    counts = [sum(part in line for line in lines) for part in (b'"interval"', b'"error"', b":null", b'"answer"')]
    assert min(*counts, len(records), sum(isinstance(one.columns, tuple) for one in entries)) > 30


def test_a_lone_plain_row_takes_the_form_and_others_the_library(tmp_path, monkeypatch):
    generator = np.random.default_rng(7)
    about = abouts(generator)[0]
    row = tuple(float(n) if kind == types_pb2.DT_FLOAT else 5 for n, (_, kind) in enumerate(about.types))
    output = ("cnt", "<f4", (1,), struct.pack("<f", 7.5))
    plain = Entry(NOON, 250, "plain", "http", MODEL, "OK", 1.0, about, row, (output,))
    large = plain._replace(request_id="large", columns=tuple(300 if value == 5 else value for value in row))
    early = plain._replace(request_id="early", began=5)
    several = plain._replace(request_id="several", columns=[[value] for value in row])
    by_library = []
    record = request_log_records._record
    monkeypatch.setattr(request_log_records, "_record", lambda one: by_library.append(one) or record(one))
    _, records = write(tmp_path, plain, large, early, several, plain)
    assert [one.request_id for one in by_library] == ["several", "large", "early"]
    assert len(records) == 5
    assert records[0] == records[3] == records[4]
