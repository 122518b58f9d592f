"""Cases of TF Serving's tests of tensors in JSON (util/json_tensor_test.cc), for rows, columns and examples."""

from __future__ import annotations

from tests.serving.conformance.case import (
    KINDS,
    KINDS_TOO,
    SECOND,
    TENSOR,
    TWO,
    Case,
    as_bytes,
    as_object,
    ask,
    predict,
    to,
)

TENSORS = [
    ask(
        f"{TENSOR} SingleUnnamedTensor",
        "whole",
        200,
        {"predictions": [[1, 2], [3, 4], [5, 6]]},
        instances="[[1,2],[3,4],[5,6]]",
    ),
    ask(
        f"{TENSOR} MixedInputForFloatTensor",
        "same",
        200,
        {"predictions": [1, 2, 3, 4, 5.003, 0.007, 0]},
        instances="[1, 2.0, 3, 4, 5.003, 0.007, 0.0]",
    ),
    ask(
        f"{TENSOR} MixedInputForDoubleTensor",
        "real",
        200,
        {"predictions": [1, 2, 3, 4, 0.662, 0, 0]},
        instances="[1.0, 2, 3, 4, 0.662, 0, 0.0]",
    ),
    ask(f"{TENSOR} SingleUnnamedTensorWithSignature", "whole", 200, {"predictions": [[1, 2]]}, instances="[[1,2]]"),
    ask(
        f"{TENSOR} SingleUnnamedTensorBase64Scalars",
        "text",
        200,
        {"predictions": as_bytes("aGVsbG8=", "d29ybGQ=")},
        instances=as_bytes("aGVsbG8=", "d29ybGQ="),
    ),
    ask(
        f"{TENSOR} SingleUnnamedTensorBase64Lists",
        "text",
        200,
        {"predictions": [as_bytes("aGVsbG8="), as_bytes("d29ybGQ=")]},
        instances=[as_bytes("aGVsbG8="), as_bytes("d29ybGQ=")],
    ),
    ask(
        f"{TENSOR} SingleNamedTensorBase64",
        "text",
        200,
        {"predictions": [[as_bytes("aGVsbG8="), as_bytes("d29ybGQ=")]]},
        instances=[{"x": [as_bytes("aGVsbG8="), as_bytes("d29ybGQ=")]}],
    ),
    ask(
        f"{TENSOR} MultipleNamedTensor",
        "kinds",
        200,
        '"whole_out": [[7, 8], [9, 0], [1, 2]], "wide_out": -7',
        instances=f"[{as_object(KINDS)}, {as_object(KINDS_TOO)}]",
    ),
    ask(
        f"{TENSOR} SingleUnnamedTensorColumnarFormat",
        "whole",
        200,
        {"outputs": [[[1, 2], [3, 4], [5, 6]]]},
        inputs='{"x": [[[1,2],[3,4],[5,6]]]}',
    ),
    ask(
        f"{TENSOR} SingleUnnamedTensorColumnarFormat, no name",
        "whole",
        200,
        {"outputs": [[[1, 2], [3, 4], [5, 6]]]},
        inputs="[[[1,2],[3,4],[5,6]]]",
    ),
    ask(
        f"{TENSOR} MultipleNamedTensorColumnarFormat",
        "texts",
        200,
        {"outputs": {"a": ["foo", "bar"], "b": "hello"}},
        inputs='{"a": ["foo", "bar"], "b": {"b64": "aGVsbG8="}}',
    ),
    Case(f"{TENSOR} SingleUnnamedTensorErrors, empty", predict(SECOND), "", 400, "document is empty"),
    Case(
        f"{TENSOR} SingleUnnamedTensorErrors, signature",
        predict(SECOND),
        '{"signature_name": 5, "instances": [[1,2]]}',
        400,
        "must be a string value",
    ),
    ask(
        f"{TENSOR} SingleUnnamedTensorErrors, both",
        "whole",
        400,
        "Not formatted correctly",
        instances="[[1,2]]",
        inputs="[[1,2]]",
    ),
    ask(
        f"{TENSOR} SingleUnnamedTensorErrors, size",
        "whole",
        400,
        "Expecting tensor size",
        instances="[[1,2],[3,4],[5,6,7]]",
    ),
    ask(
        f"{TENSOR} SingleUnnamedTensorErrors, shape", "whole", 400, "Expecting shape", instances="[[1,2],[3,4],[[5,6]]]"
    ),
    ask(f"{TENSOR} SingleUnnamedTensorErrors, rank", "whole", 400, "Expecting shape", instances="[1, [1]]"),
    ask(
        f"{TENSOR} SingleUnnamedTensorErrors, type",
        "whole",
        400,
        "not of expected type",
        instances='[[1,2],["a", "b"]]',
    ),
    ask(
        f"{TENSOR} SingleUnnamedTensorErrors, 1.79769e+308 for a float (since 2.10)",
        "same",
        200,
        '"predictions": [Infinity]',
        instances="[1.79769e+308]",
    ),
    ask(
        f"{TENSOR} SingleUnnamedTensorErrors, 16777217 for a float (since 2.10)",
        "same",
        200,
        {"predictions": [16777216]},
        instances="[16777217]",
    ),
    ask(
        f"{TENSOR} SingleUnnamedTensorErrors, 2^53 + 1 for a double (since 2.10)",
        "real",
        200,
        {"predictions": [9007199254740992]},
        instances="[9007199254740993]",
    ),
    ask(
        f"{TENSOR} MultipleNamedTensorErrors, shape",
        "texts",
        400,
        "Expecting shape",
        instances='[{"a": ["x"], "b": "y"}, {"a": [["x"]], "b": "y"}]',
    ),
    ask(
        f"{TENSOR} MultipleNamedTensorErrors, size",
        "texts",
        400,
        "Expecting tensor size",
        instances='[{"a": ["x"], "b": "y"}, {"a": ["x", "z"], "b": "y"}]',
    ),
    ask(
        f"{TENSOR} MultipleNamedTensorErrors, a list among objects",
        "texts",
        400,
        "Expecting object but got list",
        instances='[{"a": "x", "b": "y"}, [1, 20]]',
    ),
    ask(
        f"{TENSOR} MultipleNamedTensorErrors, an object among lists",
        "text",
        400,
        "Expecting value/list but got object",
        instances='[["baz"], {"x": ["baz"]}]',
    ),
    ask(
        f"{TENSOR} FromJsonSingleTensor",
        "whole",
        200,
        {"outputs": [[[1, 2], [3, 4]], [[7, 8], [9, 0]]]},
        inputs="[[[1, 2], [3, 4]], [[7, 8], [9, 0]]]",
    ),
    ask(
        f"{TENSOR} FromJsonSingleScalarTensor",
        "whole",
        200,
        {"predictions": [1, 2, 3, 4, 5]},
        instances="[1, 2, 3, 4, 5]",
    ),
    ask(
        f"{TENSOR} FromJsonSingleBytesTensor",
        "text",
        200,
        {"predictions": [as_bytes("aGVsbG8=", "d29ybGQ="), as_bytes("dGY=", "c2VydmluZw==")]},
        instances='[["hello", "world"], ["tf", "serving"]]',
    ),
    ask(
        f"{TENSOR} FromJsonSingleFloatTensorSixDigitPrecision",
        "same",
        200,
        "[[9e+06, 999999.0, 0.5], [0.0003, 3e-05, 555557.5]]",
        here="the same numbers; 9000000.0 and 0.00003 in the fewest digits, without an exponent",
        here_answer="[[9000000.0,999999.0,0.5],[0.0003,0.00003,555557.5]]",
        exact=True,
        instances="[[9000000, 999999, 0.50000], [0.0003, 0.00003, 555557.5]]",
    ),
    ask(
        f"{TENSOR} FromJsonSingleFloatTensorNonFinite",
        "same",
        200,
        "[[NaN, Infinity], [3.0, -Infinity]]",
        instances="[[NaN, Infinity], [3, -Infinity]]",
        exact=True,
    ),
    ask(
        f"{TENSOR} FromJsonSingleTensorErrors, complex numbers",
        "imaginary",
        400,
        "tensor type: complex64",
        instances="[1]",
    ),
    ask(
        f"{TENSOR} FromJsonSingleTensorErrors, no rows",
        "scalar",
        400,
        "no shape information",
        here="the row form gives a scalar one dimension, which the model takes",
        here_status=200,
        here_answer={"predictions": [6.0]},
        instances="[3]",
    ),
    ask(f"{TENSOR} FromJsonMultipleNamedTensorsErrors", "uneven", 400, "inconsistent batch size", instances="[1, 2]"),
    ask(f"{TENSOR} FromJsonSingleZeroBatchTensor", "whole", 200, {"outputs": []}, inputs="[]"),
    ask(
        f"{TENSOR} FromJsonMultipleZeroBatchTensors",
        "texts",
        200,
        {"outputs": {"a": [], "b": []}},
        inputs='{"a": [], "b": []}',
    ),
    ask(
        f"{TENSOR} FromJsonMultipleNamedTensors",
        "texts",
        200,
        {"predictions": [{"a": ["foo", "bar"], "b": "hello"}, {"a": ["baz", "bat"], "b": "tf"}]},
        instances='[{"a": ["foo", "bar"], "b": "hello"}, {"a": ["baz", "bat"], "b": "tf"}]',
    ),
]
EXAMPLES = "ClassifyRegressRequestTest"


def _examples(source: str, examples: str, answer: str, **more: str) -> Case:
    fields = {"signature_name": '"regress_x_to_y"', **more, **({"examples": examples} if examples else {})}
    return Case(f"{TENSOR} {source}", f"POST /v1/models/{TWO}:regress", as_object(fields), 400, answer)


EXAMPLE_CASES = [
    Case(
        f"{TENSOR} {EXAMPLES} RequestNoContext",
        f"POST /v1/models/{TWO}:regress",
        to("regress_x_to_y", examples='[{"x": [8.0], "names": ["a"]}, {"x": 6.0}]'),
        200,
        {"results": [6.0, 5.0]},
    ),
    Case(
        f"{TENSOR} {EXAMPLES} RequestWithContextAndSignature",
        f"POST /v1/models/{TWO}:regress",
        to(
            "regress_x_to_y",
            context='{"x": [8.0]}',
            examples='[{"mixed": [1, true]}, {"names": ["b", {"b64": "aGVsbG8="}]}]',
        ),
        200,
        {"results": [6.0, 6.0]},
    ),
    _examples(
        f"{EXAMPLES} JsonErrors, signature",
        '[{"names": ["foo"]}]',
        "'signature_name' key must be a string",
        signature_name='["hello"]',
    ),
    _examples(f"{EXAMPLES} JsonErrors, context", "", "Example must be JSON object", context='[{"names": ["foo"]}]'),
    _examples(f"{EXAMPLES} JsonErrors, no list", '{"names": ["foo"]}', "list/array"),
    _examples(f"{EXAMPLES} JsonErrors, no objects", '[[{"names": ["foo"]}]]', "Example must be JSON object"),
    _examples(
        f"{EXAMPLES} JsonErrors, null", '[{"names": [10, null]}]', "names has element with unexpected JSON type: Null"
    ),
    _examples(f"{EXAMPLES} JsonErrors, mixed", '[{"names": [10, 10.0]}]', "feature: names expecting type: int64"),
    _examples(
        f"{EXAMPLES} JsonErrors, object",
        '[{"names": [10, {"test": 10}]}]',
        "names has element with unexpected JSON type: Object",
    ),
    _examples(
        f"{EXAMPLES} JsonErrors, list", '[{"names": [[10], 20]}]', "names has element with unexpected JSON type: Array"
    ),
    _examples(f"{EXAMPLES} JsonErrors, uint64", '[{"names": [20, 18446744073709551603]}]', "Only int64 is supported"),
    Case(
        f"{TENSOR} {EXAMPLES} JsonErrors, 1.79769e+308 (since 2.10)",
        f"POST /v1/models/{TWO}:regress",
        to("regress_x_to_y", examples='[{"x": 1.79769e+308}]'),
        200,
        '"results": [Infinity]',
    ),
    Case(
        f"{TENSOR} JsonFromRegressionResultWithNonFinite",
        f"POST /v1/models/{TWO}:regress",
        to("regress_x_to_y", examples='[{"x": Infinity}, {"x": -Infinity}, {"x": NaN}, {"x": -2.0}]'),
        200,
        '"results": [Infinity, -Infinity, NaN, 1.0]',
    ),
]
