"""What TF Serving's documentation and tests say of REST, one case each: source, request, its answer, the answer here.

Facts of tensorflow/serving: g3doc/api_rest.md, util/json_tensor_test.cc, and http_rest_api_handler_test.cc and
http_rest_api_util_test.cc of model_servers. Where documentation and the older tests contradict each other (numbers that
a float does not hold), the documentation counts, which describes releases since 2.10. What no test shows is taken from
the source named.

    python -m tests.serving.conformance.cases

prints the table of docs/tf-serving-conformance.md.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

SAME = "the same"
SECOND = "conformance"
TWO, THREE = "half_plus_two", "half_plus_three"
NAME = "modelname%21%23%24%25%26%27%28%29%2A%2B%2C%2F%3A%3B%3D%3F%40%5B%5D"
PLAIN_NAME = "modelname!#$%&'()*+,/:;=?@[]"
LABEL = NAME.replace("modelname", "latest")


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        source: file and test or section, or the function of the source.
        path: where it asks, with the method.
        body: the body's text; empty for none.
        status: TF Serving's HTTP status.
        answer: part of the error's text, or the whole answer as JSON.
        here: what differs here, in words; `SAME` for nothing.
        here_status: the status here, where it differs.
        here_answer: the answer here, where it differs.
        exact: whether the numbers' own texts count, as in TF Serving's test.
    """

    source: str
    path: str
    body: str
    status: int
    answer: Any
    here: str = SAME
    here_status: int = 0
    here_answer: Any = None
    exact: bool = False

    @property
    def ours(self) -> tuple[int, Any]:
        """What this server answers."""
        return self.here_status or self.status, self.answer if self.here_answer is None else self.here_answer


def predict(model: str, place: str = "") -> str:
    """Return where a model predicts."""
    return f"POST /v1/models/{model}{place}:predict"


def to(signature: str, **content: Any) -> str:
    """Return a body that names a signature; what is a text stands there as it is."""
    fields = [f'"{name}": {value if isinstance(value, str) else json.dumps(value)}' for name, value in content.items()]
    return "{" + ", ".join([f'"signature_name": "{signature}"', *fields]) + "}"


def _ask(source: str, signature: str, status: int, answer: Any, **rest: Any) -> Case:
    options = {name: rest.pop(name) for name in ("here", "here_status", "here_answer", "exact") if name in rest}
    return Case(source, predict(SECOND), to(signature, **rest), status, answer, **options)


REST, TENSOR = "api_rest.md", "json_tensor_test.cc"
HANDLER, UTIL = "http_rest_api_handler_test.cc", "http_rest_api_util_test.cc"
STATUS = {
    "model_version_status": [
        {"version": "123", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    ]
}
KINDS = {
    "text": '"a"',
    "flag": "true",
    "whole": "[[1, 2], [3, 4], [5, 6]]",
    "wide": "-7",
    "real": "[NaN]",
    "pair": "[1.0, NaN]",
}
KINDS_TOO = {**KINDS, "text": '"b"', "whole": "[[7, 8], [9, 0], [1, 2]]", "real": "[2.0]", "pair": "[2.0, Infinity]"}


def _object(values: dict[str, str]) -> str:
    return "{" + ", ".join(f'"{name}": {value}' for name, value in values.items()) + "}"


def _bytes(*texts: str) -> list[dict[str, str]]:
    return [{"b64": text} for text in texts]


DOCUMENTED = [
    Case(f"{REST}: status of a model", f"GET /v1/models/{THREE}", "", 200, STATUS),
    Case(f"{REST}: status of a version", f"GET /v1/models/{THREE}/versions/123", "", 200, STATUS),
    Case(f"{REST}: status of a label", f"GET /v1/models/{THREE}/labels/stable", "", 200, STATUS),
    Case(
        f"{REST}: example, predict", predict(THREE), '{"instances": [1.0,2.0,5.0]}', 200, {"predictions": [3.5, 4, 5.5]}
    ),
    Case(
        f"{REST}: example, regress",
        f"POST /v1/models/{THREE}:regress",
        '{"signature_name": "tensorflow/serving/regress", "examples": [{"x": 1.0}, {"x": 2.0}]}',
        200,
        {"results": [3.5, 4.0]},
    ),
    Case(
        f"{REST}: example, an unknown model",
        predict("half"),
        '{"instances": [1.0,5.0]}',
        404,
        "Servable not found for request: Latest(half)",
    ),
    _ask(f"{REST}: rows of scalars", "text", 200, {"predictions": _bytes("Zm9v", "YmFy")}, instances='["foo", "bar"]'),
    _ask(
        f"{REST}: rows of [1, 2]", "same", 200, {"predictions": [[[1, 2]], [[3, 4]]]}, instances="[[[1, 2]], [[3, 4]]]"
    ),
    _ask(f"{REST}: columns", "texts", 200, {"outputs": {"a": ["x"], "b": "y"}}, inputs='{"a": ["x"], "b": "y"}'),
    _ask(
        f"{REST}: rows of objects",
        "texts",
        200,
        {"predictions": [{"a": "x", "b": ["y"]}, {"a": "z", "b": [""]}]},
        instances='[{"a": "x", "b": ["y"]}, {"a": "z", "b": [""]}]',
    ),
    _ask(f"{REST}: JSON mapping, exponents", "same", 200, {"outputs": [100, -0.5, 0]}, inputs="[1e2, -5E-1, 0]"),
    _ask(
        f"{REST}: floating point precision",
        "same",
        200,
        '"outputs": [1.43577434e+09]',
        here="taken, and the same float32 (1435774336), in the fewest digits that give it back",
        here_answer='"outputs":[1435774300.0]',
        exact=True,
        inputs="[1435774380]",
    ),
    _ask(
        f"{REST}: JSON conformance",
        "same",
        200,
        "[1.0, NaN, Infinity, -Infinity]",
        inputs="[1, NaN, Infinity, -Infinity]",
    ),
    _ask(
        f"{REST}: bytes in and out",
        "text",
        200,
        {"outputs": _bytes("aW1hZ2UgYnl0ZXM=")},
        inputs='[{"b64": "aW1hZ2UgYnl0ZXM="}]',
    ),
]

TENSORS = [
    _ask(
        f"{TENSOR} SingleUnnamedTensor",
        "whole",
        200,
        {"predictions": [[1, 2], [3, 4], [5, 6]]},
        instances="[[1,2],[3,4],[5,6]]",
    ),
    _ask(
        f"{TENSOR} MixedInputForFloatTensor",
        "same",
        200,
        {"predictions": [1, 2, 3, 4, 5.003, 0.007, 0]},
        instances="[1, 2.0, 3, 4, 5.003, 0.007, 0.0]",
    ),
    _ask(
        f"{TENSOR} MixedInputForDoubleTensor",
        "real",
        200,
        {"predictions": [1, 2, 3, 4, 0.662, 0, 0]},
        instances="[1.0, 2, 3, 4, 0.662, 0, 0.0]",
    ),
    _ask(f"{TENSOR} SingleUnnamedTensorWithSignature", "whole", 200, {"predictions": [[1, 2]]}, instances="[[1,2]]"),
    _ask(
        f"{TENSOR} SingleUnnamedTensorBase64Scalars",
        "text",
        200,
        {"predictions": _bytes("aGVsbG8=", "d29ybGQ=")},
        instances=_bytes("aGVsbG8=", "d29ybGQ="),
    ),
    _ask(
        f"{TENSOR} SingleUnnamedTensorBase64Lists",
        "text",
        200,
        {"predictions": [_bytes("aGVsbG8="), _bytes("d29ybGQ=")]},
        instances=[_bytes("aGVsbG8="), _bytes("d29ybGQ=")],
    ),
    _ask(
        f"{TENSOR} SingleNamedTensorBase64",
        "text",
        200,
        {"predictions": [[_bytes("aGVsbG8="), _bytes("d29ybGQ=")]]},
        instances=[{"x": [_bytes("aGVsbG8="), _bytes("d29ybGQ=")]}],
    ),
    _ask(
        f"{TENSOR} MultipleNamedTensor",
        "kinds",
        200,
        '"whole_out": [[7, 8], [9, 0], [1, 2]], "wide_out": -7',
        instances=f"[{_object(KINDS)}, {_object(KINDS_TOO)}]",
    ),
    _ask(
        f"{TENSOR} SingleUnnamedTensorColumnarFormat",
        "whole",
        200,
        {"outputs": [[[1, 2], [3, 4], [5, 6]]]},
        inputs='{"x": [[[1,2],[3,4],[5,6]]]}',
    ),
    _ask(
        f"{TENSOR} SingleUnnamedTensorColumnarFormat, no name",
        "whole",
        200,
        {"outputs": [[[1, 2], [3, 4], [5, 6]]]},
        inputs="[[[1,2],[3,4],[5,6]]]",
    ),
    _ask(
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
    _ask(
        f"{TENSOR} SingleUnnamedTensorErrors, both",
        "whole",
        400,
        "Not formatted correctly",
        instances="[[1,2]]",
        inputs="[[1,2]]",
    ),
    _ask(
        f"{TENSOR} SingleUnnamedTensorErrors, size",
        "whole",
        400,
        "Expecting tensor size",
        instances="[[1,2],[3,4],[5,6,7]]",
    ),
    _ask(
        f"{TENSOR} SingleUnnamedTensorErrors, shape", "whole", 400, "Expecting shape", instances="[[1,2],[3,4],[[5,6]]]"
    ),
    _ask(f"{TENSOR} SingleUnnamedTensorErrors, rank", "whole", 400, "Expecting shape", instances="[1, [1]]"),
    _ask(
        f"{TENSOR} SingleUnnamedTensorErrors, type",
        "whole",
        400,
        "not of expected type",
        instances='[[1,2],["a", "b"]]',
    ),
    _ask(
        f"{TENSOR} SingleUnnamedTensorErrors, 1.79769e+308 for a float (since 2.10)",
        "same",
        200,
        '"predictions": [Infinity]',
        instances="[1.79769e+308]",
    ),
    _ask(
        f"{TENSOR} SingleUnnamedTensorErrors, 16777217 for a float (since 2.10)",
        "same",
        200,
        {"predictions": [16777216]},
        instances="[16777217]",
    ),
    _ask(
        f"{TENSOR} SingleUnnamedTensorErrors, 2^53 + 1 for a double (since 2.10)",
        "real",
        200,
        {"predictions": [9007199254740992]},
        instances="[9007199254740993]",
    ),
    _ask(
        f"{TENSOR} MultipleNamedTensorErrors, shape",
        "texts",
        400,
        "Expecting shape",
        instances='[{"a": ["x"], "b": "y"}, {"a": [["x"]], "b": "y"}]',
    ),
    _ask(
        f"{TENSOR} MultipleNamedTensorErrors, size",
        "texts",
        400,
        "Expecting tensor size",
        instances='[{"a": ["x"], "b": "y"}, {"a": ["x", "z"], "b": "y"}]',
    ),
    _ask(
        f"{TENSOR} MultipleNamedTensorErrors, a list among objects",
        "texts",
        400,
        "Expecting object but got list",
        instances='[{"a": "x", "b": "y"}, [1, 20]]',
    ),
    _ask(
        f"{TENSOR} MultipleNamedTensorErrors, an object among lists",
        "text",
        400,
        "Expecting value/list but got object",
        instances='[["baz"], {"x": ["baz"]}]',
    ),
    _ask(
        f"{TENSOR} FromJsonSingleTensor",
        "whole",
        200,
        {"outputs": [[[1, 2], [3, 4]], [[7, 8], [9, 0]]]},
        inputs="[[[1, 2], [3, 4]], [[7, 8], [9, 0]]]",
    ),
    _ask(
        f"{TENSOR} FromJsonSingleScalarTensor",
        "whole",
        200,
        {"predictions": [1, 2, 3, 4, 5]},
        instances="[1, 2, 3, 4, 5]",
    ),
    _ask(
        f"{TENSOR} FromJsonSingleBytesTensor",
        "text",
        200,
        {"predictions": [_bytes("aGVsbG8=", "d29ybGQ="), _bytes("dGY=", "c2VydmluZw==")]},
        instances='[["hello", "world"], ["tf", "serving"]]',
    ),
    _ask(
        f"{TENSOR} FromJsonSingleFloatTensorSixDigitPrecision",
        "same",
        200,
        "[[9e+06, 999999.0, 0.5], [0.0003, 3e-05, 555557.5]]",
        here="the same numbers; 9000000.0 and 0.00003 in the fewest digits, without an exponent",
        here_answer="[[9000000.0,999999.0,0.5],[0.0003,0.00003,555557.5]]",
        exact=True,
        instances="[[9000000, 999999, 0.50000], [0.0003, 0.00003, 555557.5]]",
    ),
    _ask(
        f"{TENSOR} FromJsonSingleFloatTensorNonFinite",
        "same",
        200,
        "[[NaN, Infinity], [3.0, -Infinity]]",
        instances="[[NaN, Infinity], [3, -Infinity]]",
        exact=True,
    ),
    _ask(
        f"{TENSOR} FromJsonSingleTensorErrors, complex numbers",
        "imaginary",
        400,
        "tensor type: complex64",
        instances="[1]",
    ),
    _ask(
        f"{TENSOR} FromJsonSingleTensorErrors, no rows",
        "scalar",
        400,
        "no shape information",
        here="the row form gives a scalar one dimension, which the model takes",
        here_status=200,
        here_answer={"predictions": [6.0]},
        instances="[3]",
    ),
    _ask(f"{TENSOR} FromJsonMultipleNamedTensorsErrors", "uneven", 400, "inconsistent batch size", instances="[1, 2]"),
    _ask(f"{TENSOR} FromJsonSingleZeroBatchTensor", "whole", 200, {"outputs": []}, inputs="[]"),
    _ask(
        f"{TENSOR} FromJsonMultipleZeroBatchTensors",
        "texts",
        200,
        {"outputs": {"a": [], "b": []}},
        inputs='{"a": [], "b": []}',
    ),
    _ask(
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
    return Case(f"{TENSOR} {source}", f"POST /v1/models/{TWO}:regress", _object(fields), 400, answer)


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


def _malformed(method: str, path: str, source: str = f"{HANDLER} UnsupportedApiCalls") -> Case:
    return Case(source, f"{method} {path}", "", 400, f"Malformed request: {method} {path}")


def _named(method: str, place: str, verb: str = "") -> Case:
    # Nothing of this name is served: that it was found out is what shows that the name was read.
    status = 400 if "labels" in place else 404
    answer = "Could not find any versions of model modelname" if method == "GET" and not place else "Servable not found"
    if place.startswith("/versions"):
        answer = "Could not find version 99 of model modelname" if method == "GET" else "Specific(modelname, 99)"
    elif "labels" in place:
        answer = "Unrecognized servable version label: latest"
    elif verb:
        answer = f"Servable not found for request: Latest({PLAIN_NAME})"
    body = '{"instances": [1]}' if verb == ":predict" else ""
    return Case(
        f"{UTIL} {'GET' if method == 'GET' else 'POST'}",
        f"{method} /v1/models/{NAME}{place}{verb}".replace(NAME, NAME if not place else "modelname"),
        body,
        status,
        answer,
    )


NOT_A_VERSION = "/v1/models/foo/versions/18446744073709551615:regress"
URLS = [
    _malformed("GET", "/v1/foo"),
    _malformed("POST", "/v1/foo"),
    Case(f"{HANDLER} UnsupportedApiCalls", "GET /v1/models", "", 400, "Missing model name"),
    _malformed("GET", "/v1/models/debug/model_name"),
    _malformed("POST", "/v1/models"),
    _malformed("GET", "/v1/models/foo:predict"),
    _malformed("GET", "/v1/models/foo/version/50:predict"),
    _malformed("POST", "/v1/models/foo/version/50:regress"),
    _malformed("POST", "/v1/models/foo/versions/HELLO:regress"),
    Case(f"{HANDLER} UnsupportedApiCalls", f"POST {NOT_A_VERSION}", "", 400, "Failed to convert version"),
    _malformed("POST", "/v1/models/foo/metadata"),
    _malformed("POST", "/v1/models/foo/label/some_label:regress"),
    _malformed("POST", "/v1/models/foo/versions/50/labels/some_label:regress"),
    _malformed(
        "POST", "/v1/models/foo%3Apredict", "http_rest_api_util.cc: the path is not decoded before it is matched"
    ),
    _malformed("POST", "/v1/models/foo/versions/%D9%A1:predict", "http_rest_api_util.cc: a version is ASCII digits"),
    _malformed("POST", f"/v1/models/{TWO}:Predict", "http_rest_api_handler.cc: a verb is in small letters"),
    Case(f"{HANDLER} PredictModelNameVersionErrors", predict("foo"), '{ "instances": [1] }', 404, "Latest(foo)"),
    Case(
        f"{HANDLER} PredictModelNameVersionErrors",
        predict("foo", "/versions/50"),
        '{ "instances": [1] }',
        404,
        "Specific(foo, 50)",
    ),
    Case(
        f"{HANDLER} PredictModelNameVersionErrors", predict(f"{TWO}99"), '{ "instances": [1] }', 404, f"Latest({TWO}99)"
    ),
    Case(f"{HANDLER} PredictRequestErrors", predict(TWO), "", 400, "JSON Parse error: The document is empty"),
    Case(f"{HANDLER} PredictRequestErrors", predict(TWO), "instances = [1, 2]", 400, "JSON Parse error: Invalid value"),
    Case(
        f"{HANDLER} PredictRequestErrors",
        predict(TWO),
        '{ "instances": ["x", "y"] }',
        400,
        "not of expected type: float",
    ),
    Case(
        f"{HANDLER} PredictRequestErrors",
        predict(TWO, "/labels/nobody"),
        '{ "instances": [1] }',
        400,
        "Unrecognized servable version label",
    ),
    Case(
        f"{HANDLER} PredictRequestErrors",
        predict(TWO),
        '{ "signature_name": 100 }',
        400,
        "'signature_name' key must be a string value.",
    ),
    Case("json_tensor.cc: bodies are parsed before models are looked up", predict("foo"), "{", 400, "JSON Parse error"),
    Case(
        f"{HANDLER} Predict",
        predict(TWO),
        '{"instances": [[1.0, 2.0], [3.0, 4.0]]}',
        200,
        {"predictions": [[2.5, 3.0], [3.5, 4.0]]},
    ),
    Case(
        f"{HANDLER} Predict",
        predict(TWO, "/versions/123"),
        '{"instances": [1.0, 2.0]}',
        200,
        {"predictions": [2.5, 3.0]},
    ),
    Case(
        f"{HANDLER} Predict",
        predict(TWO, "/labels/stable"),
        '{"instances": [1.0, 2.0]}',
        200,
        {"predictions": [2.5, 3.0]},
    ),
    Case(
        f"{HANDLER} Predict",
        predict(TWO, "/versions/123"),
        '{"signature_name": "serving_default", "instances": [3.0, 4.0]}',
        200,
        {"predictions": [3.5, 4.0]},
    ),
    Case(
        f"{HANDLER} Predict",
        predict(TWO, "/versions/123"),
        '{"signature_name": "serving_default", "inputs": [3.0, 4.0]}',
        200,
        {"outputs": [3.5, 4.0]},
    ),
    *(
        Case(
            f"{HANDLER} Regress",
            f"POST /v1/models/{TWO}{place}:regress",
            '{"signature_name": "regress_x_to_y", "examples": [ { "x": 80.0 } ] }',
            200,
            {"results": [42]},
        )
        for place in ("", "/versions/123", "/labels/stable")
    ),
    Case(
        f"{HANDLER} Classify",
        f"POST /v1/models/{TWO}:classify",
        '{"signature_name": "classify_x_to_y", "examples": [ { "x": 20.0 } ] }',
        200,
        {"results": [[["", 12]]]},
    ),
    Case(
        f"{HANDLER} Classify",
        f"POST /v1/models/{TWO}/labels/stable:classify",
        '{"signature_name": "classify_x_to_y", "examples": [ { "x": 10.0 } ] }',
        200,
        {"results": [[["", 7]]]},
    ),
    *(
        Case(f"{HANDLER} GetStatus", f"GET /v1/models/{TWO}{place}", "", 200, STATUS)
        for place in ("", "/versions/123", "/labels/stable")
    ),
    *(
        Case(f"{HANDLER} GetModelMetadata", f"GET /v1/models/{TWO}{place}/metadata", "", 200, '"version": "123"')
        for place in ("", "/versions/123", "/labels/stable")
    ),
    *(_named("GET", place) for place in ("", "/versions/99", "/labels/latest", f"/labels/{LABEL}")),
    *(_named("POST", place, ":predict") for place in ("", "/versions/99", "/labels/latest", f"/labels/{LABEL}")),
]

# What no test of TF Serving shows, and what differs on purpose.
SOURCE = [
    _ask("json_tensor.cc AddValueToTensor", "half", 501, "to type: half", inputs="[1]"),
    _ask("rapidjson kParseNanAndInfFlag", "same", 200, "[Infinity, -Infinity, NaN]", inputs="[Inf, -Inf, -NaN]"),
    _ask("rapidjson, a number beyond double", "same", 400, "Number too big to be stored in double", inputs="[1e400]"),
    Case(
        "rapidjson, a second value",
        predict(SECOND),
        '{"instances": [1]} 2',
        400,
        "must not be followed by other values",
    ),
    Case(
        "rapidjson, bytes behind a zero byte",
        predict(SECOND),
        '{"instances": [1]}\0 and more',
        200,
        {"predictions": [2.5]},
    ),
    Case("rapidjson, a byte order mark", predict(SECOND), '\ufeff{"instances": [1]}', 200, {"predictions": [2.5]}),
    _ask(
        "predict_util.cc VerifyRequestInputsSize",
        "texts",
        400,
        "input size does not match signature: 1!=2",
        instances='[{"b64": "YQ=="}]',
    ),
    Case(
        "json_tensor.cc FillTensorMapFromInstancesList",
        predict(SECOND),
        '{"inputs": [1], "inputs": [2]}',
        200,
        {"outputs": [2.5]},
        here="of a key that stands there twice the last counts",
        here_answer={"outputs": [3.0]},
    ),
    _ask(
        "rapidjson, any depth",
        "same",
        200,
        "[[[",
        here="no deeper than `serving.security.limits.json_depth` (32)",
        here_status=400,
        here_answer="deeper than 32",
        inputs="[" * 40 + "1" + "]" * 40,
    ),
    Case(
        "get_model_status_impl.cc: a label is not looked at",
        f"GET /v1/models/{SECOND}/labels/stable",
        "",
        200,
        '"version": "2"',
        here="the version of the label, as api_rest.md says; an unknown one is 400",
        here_answer='"version": "1"',
    ),
    Case(
        "classifier.cc PreProcessClassification",
        f"POST /v1/models/{SECOND}:classify",
        '{"examples": [{"x": 1.0}]}',
        400,
        "classification",
        here="UNIMPLEMENTED, with what the signature is made for",
        here_status=501,
        here_answer="is made for tensorflow/serving/predict, not for tensorflow/serving/classify",
    ),
    Case(
        "regressor.cc GetRegressionSignatureDef",
        f"POST /v1/models/{TWO}:regress",
        to("none", examples='[{"x": 1.0}]'),
        400,
        "No signature was found with the name: none",
    ),
]
CASES = [*DOCUMENTED, *TENSORS, *EXAMPLE_CASES, *URLS, *SOURCE]


def _cell(text: str) -> str:
    # GitHub's tables know no other way to write a bar.
    shown = text.replace("\0", "\\0").replace("\ufeff", "BOM ").replace("|", "\\|")
    return f"`{shown}`" if shown else ""


def _told(status: int, answer: Any) -> str:
    text = answer if isinstance(answer, str) else json.dumps(answer)
    return f"{status} {_cell(text)}"


def table() -> str:
    """Return the cases as the table of docs/tf-serving-conformance.md."""
    lines = ["| source | request | TF Serving | here |", "|---|---|---|---|"]
    for case in CASES:
        request = f"{_cell(case.path)} {_cell(case.body)}".strip()
        here = case.here if case.here == SAME else f"{case.here}: {_told(*case.ours)}"
        lines.append(f"| {case.source} | {request} | {_told(case.status, case.answer)} | {here} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
