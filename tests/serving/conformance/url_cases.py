"""Cases of TF Serving's tests of addresses and of its source: who is asked, and for what."""

from __future__ import annotations

from tests.serving.conformance.case import (
    HANDLER,
    LABEL,
    NAME,
    PLAIN_NAME,
    SECOND,
    STATUS,
    TWO,
    UTIL,
    Case,
    ask,
    predict,
    to,
)


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
    ask("json_tensor.cc AddValueToTensor", "half", 501, "to type: half", inputs="[1]"),
    ask("rapidjson kParseNanAndInfFlag", "same", 200, "[Infinity, -Infinity, NaN]", inputs="[Inf, -Inf, -NaN]"),
    ask("rapidjson, a number beyond double", "same", 400, "Number too big to be stored in double", inputs="[1e400]"),
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
    ask(
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
    ask(
        "rapidjson, any depth",
        "same",
        200,
        "[[[",
        here="no deeper than `serving.server.limits.json_depth` (32)",
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
