"""JSON is taken, refused and written as TF Serving does it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from bike_pipeline.serving.protos import types_pb2
from bike_pipeline.serving.server import json_format, json_values, tensors
from bike_pipeline.serving.server.tensors import Signature, TensorSpec
from bike_pipeline.serving.statuses import Code, StatusError

INT, FLOAT, STRING = types_pb2.DT_INT64, types_pb2.DT_FLOAT, types_pb2.DT_STRING


def signature(plain=True, **inputs):
    specs = {name: TensorSpec(dtype, shape) for name, (dtype, shape) in sorted(inputs.items())}
    kinds = {INT: int, FLOAT: float}
    simple = plain and all(spec.dtype in kinds and spec.shape == (-1,) for spec in specs.values())
    fast = {name: kinds[spec.dtype] for name, spec in specs.items()} if simple else {}
    return Signature("serving_default", specs, {"y": TensorSpec(FLOAT, (-1,))}, True, fast)


TWO = signature(hr=(INT, (-1,)), temp=(FLOAT, (-1,)))
ONE = signature(x=(FLOAT, (-1,)))
TEXT = signature(text=(STRING, (-1,)))
PAIRS = signature(x=(FLOAT, (-1, 2)))


def taken(body, of):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    columns, form = json_format.inputs_of(json_values.parse(content), of)
    rows = tensors.rows_of(columns, of)
    if isinstance(columns, tuple):
        columns = dict(zip(of.inputs, ([value] for value in columns), strict=True))
    return {name: np.asarray(values).tolist() for name, values in columns.items()}, rows, form


@pytest.mark.parametrize(
    ("body", "of", "expected"),
    [
        ({"instances": [{"hr": 8, "temp": 0.5}]}, TWO, ({"hr": [8], "temp": [0.5]}, 1, "row")),
        ({"instances": [{"temp": 1, "hr": 8}]}, TWO, ({"hr": [8], "temp": [1.0]}, 1, "row")),
        (
            {"instances": [{"hr": 8, "temp": 0.5}, {"temp": 1, "hr": 9}]},
            TWO,
            ({"hr": [8, 9], "temp": [0.5, 1.0]}, 2, "row"),
        ),
        ({"inputs": {"hr": [8, 9], "temp": [0.5, 1]}}, TWO, ({"hr": [8, 9], "temp": [0.5, 1.0]}, 2, "column")),
        ({"inputs": {"hr": [8], "temp": [1], "more": [1]}}, TWO, ({"hr": [8], "temp": [1.0]}, 1, "column")),
        ({"instances": [1, 2.5]}, ONE, ({"x": [1, 2.5]}, 2, "row")),
        ({"inputs": [1, 2.5]}, ONE, ({"x": [1, 2.5]}, 2, "column")),
        ({"instances": [{"b64": "/wA="}, "ü"]}, TEXT, ({"text": [b"\xff\x00", "ü".encode()]}, 2, "row")),
        ({"instances": [{"text": {"b64": "/wA"}}]}, TEXT, ({"text": [b"\xff\x00"]}, 1, "row")),
        ({"instances": [[1, 2], [3, 4.5]]}, PAIRS, ({"x": [[1, 2], [3, 4.5]]}, 2, "row")),
        ({"instances": [{"hr": -(1 << 63), "temp": 1e-45}]}, TWO, None),
    ],
    ids=range(11),
)
def test_taken(body, of, expected):
    got = taken(body, of)
    if expected is not None:
        assert got == expected


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1435774380", 1435774336.0),
        ("16777217", 16777216.0),
        ("1.79769e+308", math.inf),
        ("-1e39", -math.inf),
        ("3.4028235e38", 3.4028234663852886e38),
        ("18446744073709551616", 18446744073709551616.0),
        ("Inf", math.inf),
        ("-Inf", -math.inf),
    ],
)
@pytest.mark.parametrize("form", ['{"instances": [%s, 0.5]}', '{"instances": [{"x": %s}]}', '{"inputs": [%s]}'])
def test_a_number_for_a_float_is_rounded_and_infinite_beyond_its_range(text, number, form):
    columns, _, _ = taken((form % text).encode(), ONE)
    assert np.float32(columns["x"][0]) == np.float32(number)


@pytest.mark.parametrize(
    "content",
    [b'\xef\xbb\xbf{"instances": [1]}', b'{"instances": [1]}\0 and more', b'{"instances": [1], "s": "a, -NaN"}'],
    ids=["byte order mark", "behind a zero byte", "a text is no number"],
)
def test_what_rapidjson_takes_is_taken(content):
    assert taken(content, ONE)[0] == {"x": [1]}


def test_minus_nan_is_taken_and_texts_beside_it_stay_as_they_are():
    columns, _, _ = taken(b'{"instances": ["Inf NaN", "a\\"-Inf"], "ignored": [-NaN]}', TEXT)
    assert columns["text"] == [b"Inf NaN", b'a"-Inf']


@pytest.mark.parametrize(
    ("body", "of", "rows"),
    [
        ({"instances": [{"hr": [1], "temp": 1}]}, TWO, None),
        ({"inputs": {"hr": [1, 2], "temp": [1]}}, TWO, None),
        ({"inputs": [[1]]}, ONE, None),
        ({"instances": [[1, 2, 3]]}, PAIRS, None),
        ({"instances": [[1, 2]]}, PAIRS, 1),
    ],
    ids=range(5),
)
def test_inputs_of_other_shapes_are_left_to_the_model(body, of, rows):
    assert taken(body, of)[1] == rows


def test_nan_and_infinity_are_taken_bare():
    columns, rows, _ = taken(b'{"instances": [NaN, Infinity, -Infinity, 1]}', ONE)
    assert rows == 4
    assert math.isnan(columns["x"][0])
    assert columns["x"][1:] == [math.inf, -math.inf, 1.0]


@pytest.mark.parametrize(
    ("body", "of", "message"),
    [
        (b"", ONE, "JSON Parse error: The document is empty"),
        (b"{", ONE, "JSON Parse error: "),
        (b"[1]", ONE, r"JSON Value: \[1\] Is not object"),
        (b"\xff{}", ONE, "JSON Parse error: "),
        ({"signature_name": 1, "instances": [1]}, ONE, "'signature_name' key must be a string value"),
        ({}, ONE, "Missing 'inputs' or 'instances' key"),
        ({"inputs": [1], "instances": [1]}, ONE, "expecting only one of 'inputs' or 'instances' keys"),
        ({"instances": {}}, ONE, "Excepting 'instances' to be an list/array"),
        ({"instances": []}, ONE, "No values in 'instances' array"),
        ({"instances": [1]}, TWO, "instances is a plain list, but expecting list of objects"),
        ({"inputs": [1]}, TWO, "inputs is a plain value/list, but expecting an object"),
        ({"inputs": {"hr": [1]}}, TWO, "Missing named input: temp in 'inputs' object."),
        ({"instances": [{"hr": 1}]}, TWO, "element: 0 of 'instances' list.*keys must be equal to: hr,temp"),
        ({"instances": [{"hr": 1, "temp": 1, "x": 1}]}, TWO, "element: 0 key: x.*does not have named input: x"),
        ({"instances": [{"hr": 1, "temp": 1}, [1]]}, TWO, "Expecting object but got list at item 1"),
        ({"instances": [1, {"x": 1}]}, ONE, "Expecting value/list but got object at item 1"),
        ({"instances": [{"hr": 1.5, "temp": 1}]}, TWO, "1.5 Type: Number is not of expected type: int64"),
        ({"instances": [{"hr": 1.0, "temp": 1}]}, TWO, "1.0 Type: Number is not of expected type: int64"),
        ({"instances": [{"hr": True, "temp": 1}]}, TWO, "true Type: True is not of expected type: int64"),
        ({"instances": [{"hr": None, "temp": 1}]}, TWO, "null Type: Null is not of expected type: int64"),
        ({"instances": [{"hr": "8", "temp": 1}]}, TWO, '"8" Type: String is not of expected type: int64'),
        ({"instances": [{"hr": 1 << 63, "temp": 1}]}, TWO, "9223372036854775808 Type: Number is not of expected type"),
        ({"instances": [{"b64": "*"}]}, TEXT, "Unable to base64 decode"),
        ({"instances": [{"text": {"b64": 1}}]}, TEXT, "not formatted correctly for base64 data"),
        ({"instances": [[1, 2], [1]]}, PAIRS, r"element: 1 of.*Expecting tensor size: 2 but got: 1"),
        ({"inputs": [[1, 2], [1]]}, PAIRS, "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
        ({"inputs": [[1, 2], 1]}, PAIRS, "found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
        (b'{"inputs": ' + b"[" * 600 + b"]" * 600 + b"}", ONE, "Encountered list at unexpected level"),
    ],
    ids=range(28),
)
def test_refused(body, of, message):
    with pytest.raises(StatusError, match=message) as caught:
        taken(body, of)
    assert caught.value.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize("value", [1.5, True, "8", None, 1 << 63])
def test_the_short_way_for_one_row_refuses_what_the_long_way_refuses(value):
    body = {"instances": [{"hr": value, "temp": 0.5}]}
    slow = signature(plain=False, hr=(INT, (-1,)), temp=(FLOAT, (-1,)))
    messages = []
    for of in (TWO, slow):
        with pytest.raises(StatusError) as caught:
            taken(body, of)
        messages.append(caught.value.message)
    assert messages[0] == messages[1]


def test_floats_are_written_in_the_fewest_digits_that_give_them_back():
    values = np.array([0.1, 100, 1e7, 123456.78, 1e-8, 3.4e38, 16777216], np.float32)
    text = json_format.response({"y": values}, "row")
    assert b'"predictions":[0.1,100.0,' in text
    read = json.loads(text, parse_int=lambda found: pytest.fail(f"{found} has no decimal point"))
    np.testing.assert_array_equal(np.array(read["predictions"], np.float32), values)


def test_what_is_not_finite_is_written_bare():
    values = np.array([math.nan, math.inf, -math.inf, 0.1], np.float32)
    assert json_format.response({"y": values}, "column") == b'{"outputs": [NaN, Infinity, -Infinity, 0.1]}'


def test_several_outputs_have_names_and_bytes_are_base64():
    outputs = {"n": np.array([1, 2], np.int32), "text_bytes": np.array([b"\xff\x00", b"a"], object)}
    outputs["text"] = np.array([b"b", b"\xc3\xbc"], object)
    assert json.loads(json_format.response(outputs, "row")) == {
        "predictions": [
            {"n": 1, "text": "b", "text_bytes": {"b64": "/wA="}},
            {"n": 2, "text": "ü", "text_bytes": {"b64": "YQ=="}},
        ]
    }
    assert json.loads(json_format.response(outputs, "column"))["outputs"]["text_bytes"][1] == {"b64": "YQ=="}
    assert json.loads(json_format.response({"n": np.int64([[1], [2]])}, "row")) == {"predictions": [[1], [2]]}


def test_rows_cannot_be_written_of_outputs_that_have_none():
    with pytest.raises(StatusError, match="n has no shape information"):
        json_format.response({"n": np.float32(1)}, "row")
    with pytest.raises(StatusError, match="m has inconsistent batch size: 1 expecting: 2"):
        json_format.response({"k": np.zeros(2), "m": np.zeros(1)}, "row")
    assert json.loads(json_format.response({"n": np.array(1.5)}, "column")) == {"outputs": 1.5}
