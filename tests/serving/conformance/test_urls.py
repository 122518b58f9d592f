"""Which paths and methods are answered, and what is said of all others."""

from __future__ import annotations

import pytest

from tests.serving.conformance.conftest import instances

# A server that serves two models is started, and a model made for it.
pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/v1"),
        ("GET", "/v2/models/{model}"),
        ("GET", "/v1/models/{model}/"),
        ("GET", "/v1/models/{model}/version/1"),
        ("GET", "/v1/models/{model}/versions/one"),
        ("GET", "/v1/models/{model}/versions/-1"),
        ("GET", "/v1/models/{model}/versions/1/labels/x"),
        ("GET", "/v1/models/{model}:predict"),
        ("POST", "/v1/models/{model}"),
        ("POST", "/v1/models/{model}/metadata"),
        ("POST", "/v1/models/{model}:explain"),
        ("POST", "/v1/models/{model}:predict/more"),
        ("POST", "/v1/models/{model}/:predict"),
        ("POST", "/v1/models/:predict"),
        ("POST", "/v1/models/{model}/labels/:predict"),
        ("PUT", "/v1/models/{model}:predict"),
        ("DELETE", "/v1/models/{model}"),
    ],
)
def test_other_paths_are_malformed_requests(ask, conforming, method, path):
    path = path.format(model=conforming.model)
    answer = ask(method, path, b"{}" if method in ("POST", "PUT") else None)
    assert answer.status == 400
    assert answer.error == f"Malformed request: {method} {path}"


def test_a_model_must_be_named(ask):
    answer = ask("GET", "/v1/models")
    assert (answer.status, answer.error) == (400, "Missing model name in request.")


def test_paths_are_of_any_case(ask, conforming, rows):
    body = {"instances": instances(rows)}
    assert ask("POST", f"/V1/Models/{conforming.model}:predict", body).status == 200
    assert ask("GET", f"/v1/MODELS/{conforming.model}/METADATA").status == 200


@pytest.mark.parametrize("verb", ["predict", "classify", "regress"])
def test_a_model_that_is_not_served(ask, verb):
    answer = ask("POST", f"/v1/models/nothing:{verb}", {"instances": [1.0], "examples": [{"x": 1.0}]})
    assert (answer.status, answer.error) == (404, "Servable not found for request: Latest(nothing)")
    answer = ask("POST", f"/v1/models/nothing/versions/3:{verb}", {"instances": [1.0], "examples": [{"x": 1.0}]})
    assert (answer.status, answer.error) == (404, "Servable not found for request: Specific(nothing, 3)")


def test_a_version_that_is_not_served(ask, url, conforming, rows):
    answer = ask("POST", f"{url}/versions/99:predict", {"instances": instances(rows)})
    assert answer.status == 404
    assert answer.error == f"Servable not found for request: Specific({conforming.model}, 99)"


def test_an_unknown_label_is_a_bad_request(ask, url, rows):
    answer = ask("POST", f"{url}/labels/nobody:predict", {"instances": instances(rows)})
    assert answer.status == 400
    assert answer.error.startswith("Unrecognized servable version label: nobody")


def test_a_version_of_more_than_64_bits(ask, url):
    answer = ask("GET", f"{url}/versions/{1 << 64}")
    assert answer.status == 400
    assert str(1 << 64) in answer.error


def test_the_bike_model_does_not_classify_or_regress(ask, url, conforming):
    for verb in ("classify", "regress"):
        answer = ask("POST", f"{url}:{verb}", {"examples": [{"hr": 1}]})
        # TF Serving looks at the tensors only, and says which one is missing.
        assert answer.status == (400 if conforming.is_named else 501)
        assert conforming.is_named or "is made for tensorflow/serving/predict" in answer.error


def test_connections_are_kept(conforming, url):
    import http.client

    connection = http.client.HTTPConnection(conforming.rest, timeout=60)
    for path in (url, "/nowhere", url):
        connection.request("GET", path)
        connection.getresponse().read()
        kept = connection.sock
        assert kept is not None
    connection.close()


def test_a_page_of_another_origin_may_ask(ask, conforming, url):
    if "cors" not in conforming.extras:
        pytest.skip("not told of the server under test: BIKE_SERVING_CORS")
    headers = {"Origin": "https://example.org", "Access_Control_Request_Method": "POST"}
    answer = ask("OPTIONS", f"{url}:predict", None, **headers)
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "content-type" in answer.headers["access-control-allow-headers"].lower()
