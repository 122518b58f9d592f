"""Requests that nobody thought of, over REST: the server answers each as TF Serving would, and goes on answering."""

from __future__ import annotations

import http.client
import json
import socket

import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings, strategies
from jsonschema import Draft202012Validator
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from bike_pipeline import features
from bike_pipeline.modeling.loaded_model import LoadedModel
from bike_pipeline.serving.server.openapi import document
from bike_pipeline.settings import load_settings
from tests.serving.running import required_rows

DOCUMENT = document(load_settings())
API = schemathesis.openapi.from_dict(DOCUMENT)
API.config.phases.coverage.enabled = False
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
PREDICT = "/v1/models/bike_demand:predict"
# What a request without a fault of the server may end with.
ALLOWED = {200, 400, 401, 403, 404, 405, 408, 413, 429}
ERROR = Draft202012Validator(DOCUMENT["components"]["schemas"]["Error"])
GOLDEN = {name: values.tolist() for name, values in required_rows(20).items()}
BOUNDED = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": list(HealthCheck),
}


@pytest.fixture(scope="module")
def expected(servable_model):
    return LoadedModel(servable_model).predict({name: np.array(values) for name, values in GOLDEN.items()})


@pytest.fixture(autouse=True)
def still_right(model_server, expected):
    """After a test the server lives, answers golden rows right, and logged no unforeseen error."""
    before = model_server.log
    yield
    assert model_server.process.poll() is None
    status, content = sent(model_server.rest, PREDICT, json.dumps({"inputs": GOLDEN}).encode())
    assert status == 200
    np.testing.assert_allclose(json.loads(content)["outputs"], expected, rtol=1e-5, atol=1e-4)
    assert "Traceback" not in model_server.log[len(before) :]


def sent(address, path, body=None, method=None):
    """Return the status and the body of an answer; the path goes out byte for byte."""
    host, _, port = address.partition(":")
    method = method or ("GET" if body is None else "POST")
    head = f"{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {len(body or b'')}\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(head.encode("latin-1") + (body or b""))
        answer = http.client.HTTPResponse(connection, method=method)
        answer.begin()
        return answer.status, answer.read()


def check(status, content):
    assert status in ALLOWED, (status, content)
    if status != 200:
        ERROR.validate(json.loads(content))
        for inside in (b"Traceback", b"/home", b".py", b"site-packages", b"object at 0x"):
            assert inside not in content, content


@API.parametrize()
@settings(max_examples=25, **BOUNDED)
def test_what_the_document_describes_and_what_it_does_not_is_answered_as_it_says(case, model_server):
    case.call_and_validate(base_url=f"http://{model_server.rest}", timeout=60, checks=CHECKS)


VALUES = strategies.one_of(
    strategies.none(),
    strategies.booleans(),
    strategies.integers(-(2**70), 2**70),
    strategies.floats(allow_nan=True, allow_infinity=True),
    strategies.text(max_size=5),
    strategies.just({"b64": "AAAA"}),
    strategies.just({"b64": "é"}),
    strategies.just({}),
)
NESTED = strategies.recursive(VALUES, lambda inner: strategies.lists(inner, max_size=3), max_leaves=8)
NAMES = [feature.name for feature in features.REQUIRED_INPUTS]


@strategies.composite
def nearly_right(draw):
    """A right body with a few faults in it."""
    row = {name: values[0] for name, values in GOLDEN.items()}
    rows = [dict(row) for _ in range(draw(strategies.integers(1, 3)))]
    for _ in range(draw(strategies.integers(0, 3))):
        target = draw(strategies.sampled_from(rows))
        name = draw(strategies.sampled_from([*NAMES, "casual", ""]))
        if draw(strategies.booleans()):
            target[name] = draw(NESTED)
        else:
            target.pop(name, None)
    body = {}
    if draw(strategies.booleans()):
        body["instances"] = rows
    if not body or draw(strategies.integers(0, 9)) == 0:
        columns = {name: [each.get(name) for each in rows] for name in rows[0]}
        body["inputs"] = draw(strategies.sampled_from([columns, rows, 1, None, [columns]]))
    if draw(strategies.integers(0, 4)) == 0:
        body["signature_name"] = draw(strategies.one_of(NESTED, strategies.text(max_size=300)))
    return json.dumps(body, ensure_ascii=draw(strategies.booleans())).encode("utf-8", "surrogatepass")


@strategies.composite
def damaged(draw):
    """A right body, cut, with bytes changed or doubled."""
    body = bytearray(draw(nearly_right()))
    for _ in range(draw(strategies.integers(1, 4))):
        at = draw(strategies.integers(0, len(body)))
        piece = draw(strategies.one_of(strategies.binary(max_size=4), strategies.sampled_from(PIECES)))
        body[at : at + draw(strategies.integers(0, 8))] = piece
    return bytes(body)


PIECES = [
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"[" * 40,
    b'{"b64":',
    b"\\ud800",
    b"\xff",
    b"\0",
    b'"',
    b"1" * 400,
    b"-0.0e-5",
]


@settings(max_examples=200, **BOUNDED)
@given(body=strategies.one_of(nearly_right(), damaged()))
def test_bodies_with_faults_get_an_answer_or_an_error_of_the_client(model_server, body):
    check(*sent(model_server.rest, PREDICT, body))


PARTS = [
    *(
        "v1",
        "models",
        "bike_demand",
        "bike_demand:predict",
        "versions",
        "1",
        "labels",
        "stable",
        "metadata",
        ":predict",
    ),
    *(
        ":predict",
        ":classify",
        ":regress",
        "monitoring",
        "prometheus",
        "metrics",
        "openapi.json",
        "VERSIONS",
        "",
        "a" * 3000,
    ),
    *("..", "../../etc/passwd", "%2e%2e", "%2F", "..%2f..%2fetc", "%00", "%7f", "%ff%fe", "é", "ÿ", "%", "%zz", "\\"),
    *("99999999999999999999", "-1", "00001", ":", "%3A", "?x=1", "#", "*", ";", "//", "http:"),
]


@settings(max_examples=200, **BOUNDED)
@given(
    parts=strategies.lists(strategies.sampled_from(PARTS), min_size=1, max_size=8),
    glue=strategies.sampled_from(["/", ""]),
    method=strategies.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "BREW"]),
)
def test_paths_with_faults_get_an_answer_or_an_error_of_the_client(model_server, parts, glue, method):
    status, content = sent(model_server.rest, "/" + glue.join(parts), b"{}" if method == "POST" else None, method)
    if method == "HEAD" or not content.startswith(b"{"):
        # A path that is none is refused by aiohttp's parser, in its own words.
        assert status in ALLOWED
    else:
        check(status, content)


GET, POST = b"GET /v1/models/bike_demand HTTP/1.1\r\nHost: a\r\n", b"POST %s HTTP/1.1\r\nHost: a\r\n" % PREDICT.encode()
LINES = [
    *(b"Content-Length: -1\r\n", b"Content-Length: 5\r\nContent-Length: 6\r\n", b"Transfer-Encoding: chunked\r\n"),
    *(
        b"Content-Encoding: gzip\r\n",
        b"Content-Encoding: br\r\n",
        b"Upgrade: websocket\r\n",
        b"Connection: upgrade\r\n",
    ),
    *(b"\r\n", b"\r\n\r\n", b"5\r\nab", b"zz\r\n", b"Expect: 100-continue\r\n", b"Expect: else\r\n", b" folded\r\n"),
    *(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00", b"X-A: \xff\r\n", b": a\r\n", b"Host: b\r\n"),
]


@settings(max_examples=150, **BOUNDED)
@given(
    start=strategies.sampled_from([b"", GET, POST]),
    rest=strategies.lists(
        strategies.one_of(strategies.binary(max_size=20), strategies.sampled_from(LINES)), max_size=6
    ),
)
def test_bytes_that_are_hardly_http_never_end_the_server(model_server, start, rest):
    host, _, port = model_server.rest.partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(start + b"".join(rest) + b"\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while chunk := connection.recv(65536):
                answer += chunk
        except ConnectionResetError:
            pass
    assert not answer or answer.startswith(b"HTTP/1.")
    assert b" 500 " not in answer.partition(b"\r\n")[0]
    assert b"Traceback" not in answer
