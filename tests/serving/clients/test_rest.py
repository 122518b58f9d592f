"""REST clients against a server that fails in every way."""

from __future__ import annotations

import json
import socket

import numpy as np
import pytest

from bike_pipeline import features
from bike_pipeline.serving import clients
from bike_pipeline.serving.clients import RetryPolicy
from tests.serving.clients import scripted
from tests.serving.clients.asking import COLUMNS, ask, both_ways, to
from tests.serving.clients.scripted import answer, error, outputs, raw, rest

pytestmark = both_ways


def test_columns_go_in_and_rentals_come_out(way):
    with rest(outputs(12.5, 3)) as server:
        found = ask(way, to(server.port, "rest"))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [12.5, 3])
    first, headers, body = server.asked[0]
    assert first == "POST /v1/models/bike_demand:predict HTTP/1.1"
    assert headers["content-type"] == "application/json"
    assert "authorization" not in headers
    sent = json.loads(body)["inputs"]
    assert sent == {name: pytest.approx(values) for name, values in COLUMNS.items()}
    assert all(isinstance(value, int) for value in sent["hr"])
    assert "signature_name" not in json.loads(body)


def test_one_optional_input_asks_the_signature_that_takes_them_all(way):
    with rest(outputs(12.5, 3)) as server:
        ask(way, to(server.port, "rest"), "predict", {**COLUMNS, "day": [24, 25]})
    sent = json.loads(server.asked[0][2])
    assert sent["signature_name"] == "serving_all_inputs"
    assert list(sent["inputs"]) == [feature.name for feature in features.MODEL_INPUTS]
    assert sent["inputs"]["day"] == [24, 25]
    assert sent["inputs"]["temp_mean_24h"] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"version": 3}, "/v1/models/bike_demand/versions/3:predict"),
        ({"label": "a b/c"}, "/v1/models/bike_demand/labels/a%20b%2Fc:predict"),
    ],
)
def test_a_version_or_a_label_is_asked(way, options, path):
    with rest(outputs(1, 2)) as server:
        ask(way, to(server.port, "rest", **options))
    assert server.asked[0][0].split()[1] == path


def test_many_rows_are_several_requests(way):
    rows = {name: values * 4 for name, values in COLUMNS.items()}
    with rest(outputs(1, 2, 3), outputs(4, 5, 6), outputs(7, 8)) as server:
        found = ask(way, to(server.port, "rest", rows_per_request=3), "predict", rows)
    assert found.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert len(server.asked) == 3


def test_no_rows_are_no_request(way):
    with rest(outputs()) as server:
        assert ask(way, to(server.port, "rest"), "predict", {name: [] for name in COLUMNS}).shape == (0,)
    assert not server.asked


def test_nan_and_infinity_travel_both_ways(way):
    columns = {**COLUMNS, "temp": [float("nan"), float("-inf")]}
    with rest(answer(200, b'{"outputs": [NaN, Infinity]}')) as server:
        found = ask(way, to(server.port, "rest"), "predict", columns)
    np.testing.assert_array_equal(found, [np.nan, np.inf])
    assert b"NaN" in server.asked[0][2]
    assert b"-Infinity" in server.asked[0][2]


@pytest.mark.parametrize(
    "step",
    [
        error(503, "loading"),
        error(503, "loading", Retry_After="0"),
        error(429, "slow down", Retry_After="0"),
        scripted.reset,
        raw(b""),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{"),
    ],
    ids=["503", "503-when", "429-when", "reset", "closed", "cut-off"],
)
def test_what_may_be_sent_again_is(way, step):
    with rest(step, step, outputs(1, 2)) as server:
        assert ask(way, to(server.port, "rest")).tolist() == [1, 2]
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("status", "message", "kind", "code"),
    [
        (400, "JSON Value: 1 is not expected type: object", clients.BadRequestError, "INVALID_ARGUMENT"),
        (400, "Unrecognized servable version label: x", clients.UnknownModelError, "INVALID_ARGUMENT"),
        (401, "who are you", clients.UnauthenticatedError, "UNAUTHENTICATED"),
        (403, "not you", clients.UnauthenticatedError, "PERMISSION_DENIED"),
        (404, "Servable not found for request: Latest(x)", clients.UnknownModelError, "NOT_FOUND"),
        (409, "aborted", clients.ServerFailureError, "ABORTED"),
        (413, "too large", clients.BadRequestError, "INVALID_ARGUMENT"),
        (429, "too often", clients.OverloadedError, "RESOURCE_EXHAUSTED"),
        (500, "broken", clients.ServerFailureError, "INTERNAL"),
        (501, "not here", clients.ServerFailureError, "UNIMPLEMENTED"),
        (502, "bad gateway", clients.ServerFailureError, "INTERNAL"),
        (504, "too slow", clients.TimedOutError, "DEADLINE_EXCEEDED"),
    ],
)
def test_errors_have_a_class_each_and_are_not_sent_again(way, status, message, kind, code):
    with rest(error(status, message)) as server, pytest.raises(kind) as caught:
        ask(way, to(server.port, "rest"))
    assert type(caught.value) is kind
    assert caught.value.code == code
    assert message in str(caught.value)
    assert f"http://127.0.0.1:{server.port}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(server.asked) == 1


def test_after_all_tries_the_last_error_is_raised(way):
    with rest(error(503, "loading")) as server, pytest.raises(clients.UnavailableError, match=r"loading.*4 tries"):
        ask(way, to(server.port, "rest"))
    assert len(server.asked) == 4


def test_a_server_that_is_not_there_is_tried_again(way):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(clients.UnavailableError, match=r"refused.*4 tries"):
        ask(way, to(port, "rest"))


def test_a_name_that_nobody_knows(way):
    connection = clients.Connection("no-such-host.invalid", 8501, "rest", "m", retries=RetryPolicy(1))
    with pytest.raises(clients.UnavailableError, match=r"no-such-host\.invalid"):
        ask(way, connection)


@pytest.mark.parametrize(
    "step",
    [scripted.silence, scripted.drip, scripted.drip_without_length, scripted.drip_headers],
    ids=["silent", "drips", "drips-without-length", "drips-headers"],
)
def test_a_slow_answer_ends_with_the_deadline_and_is_not_asked_for_again(way, step):
    with rest(step) as server, pytest.raises(clients.TimedOutError, match=r"within 1 s"):
        ask(way, to(server.port, "rest", timeout=1.0))
    assert len(server.asked) == 1


def test_the_deadline_is_of_the_call_and_not_of_a_try(way):
    # Four tries of 1.5 s each would be allowed 6 s; the second one gets what the first left over.
    with rest(error(503, "loading"), scripted.silence) as server, pytest.raises(clients.TimedOutError):
        ask(way, to(server.port, "rest", timeout=1.5))
    assert len(server.asked) == 2


@pytest.mark.parametrize("status", [429, 503])
def test_a_wait_past_the_deadline_is_not_begun(way, status):
    with rest(error(status, "come again", Retry_After="3600")) as server, pytest.raises(clients.ClientError) as caught:
        ask(way, to(server.port, "rest"))
    assert caught.value.retry_after == 3600
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "step",
    [
        raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
        answer(200, b"<html>"),
        answer(200, b"{}"),
        answer(200, b"[1]"),
        outputs(1),
        answer(200, b'{"outputs": ["a", "b"]}'),
        answer(200, b'{"outputs": {"other": [1, 2]}}'),
        answer(200, b"[" * 100_000),
        answer(302, b"", Location="/elsewhere"),
        answer(500, b"<html>oh</html>"),
    ],
    ids=["ssh", "html", "empty", "list", "one-row", "texts", "other-output", "deep", "elsewhere", "html-error"],
)
def test_what_is_no_answer_of_a_model_server(way, step):
    with rest(step) as server, pytest.raises(clients.ServerFailureError) as caught:
        ask(way, to(server.port, "rest"))
    assert "\n" not in str(caught.value)
    assert len(server.asked) == 1


def test_an_answer_that_was_cut_off_is_never_taken_for_the_next_one(way):
    with rest(scripted.drip, outputs(1, 2)) as server:
        connection = to(server.port, "rest", timeout=1.0)
        if way == "blocking":
            with clients.connect(connection) as client:
                with pytest.raises(clients.TimedOutError):
                    client.predict(COLUMNS)
                assert client.predict(COLUMNS).tolist() == [1, 2]
            return

        async def twice():
            async with clients.connect_async(connection) as client:
                with pytest.raises(clients.TimedOutError):
                    await client.predict(COLUMNS)
                return await client.predict(COLUMNS)

        import asyncio

        assert asyncio.run(twice()).tolist() == [1, 2]


def test_status_and_health(way):
    states = [
        {"version": "2", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}},
        {"version": "1", "state": "END", "status": {"error_code": "NOT_FOUND", "error_message": "gone"}},
    ]
    with rest(answer(200, json.dumps({"model_version_status": states}).encode())) as server:
        found = ask(way, to(server.port, "rest"), "status")
        assert [(one.version, one.available) for one in found] == [(2, True), (1, False)]
        assert found[1].error_message == "gone"
        assert ask(way, to(server.port, "rest"), "healthy") is True
    with rest(answer(200, json.dumps({"model_version_status": states[1:]}).encode())) as server:
        assert ask(way, to(server.port, "rest"), "healthy") is False
    assert server.asked[0][0] == "GET /v1/models/bike_demand HTTP/1.1"


def test_metadata(way):
    tensor = {"dtype": "DT_INT64", "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}}
    signature = {"inputs": {"hr": tensor}, "outputs": {"cnt": {**tensor, "tensor_shape": {"unknown_rank": True}}}}
    content = {
        "model_spec": {"name": "bike_demand", "signature_name": "", "version": "7"},
        "metadata": {"signature_def": {"signature_def": {"serving_default": signature}}},
    }
    with rest(answer(200, json.dumps(content).encode())) as server:
        found = ask(way, to(server.port, "rest", version=7), "metadata")
    assert server.asked[0][0] == "GET /v1/models/bike_demand/versions/7/metadata HTTP/1.1"
    assert (found.model, found.version) == ("bike_demand", 7)
    assert found.signatures["serving_default"].inputs["hr"] == clients.TensorInfo("DT_INT64", (-1,))
    assert found.signatures["serving_default"].outputs["cnt"].shape is None


def test_secrets_are_sent_and_never_shown(way):
    with rest(error(401, "no")) as server:
        connection = to(server.port, "rest", token="t0ken", api_key="k3y")
        with pytest.raises(clients.UnauthenticatedError) as caught:
            ask(way, connection)
    assert server.asked[0][1]["authorization"] == "Bearer t0ken"
    assert server.asked[0][1]["x-api-key"] == "k3y"
    assert not any(secret in f"{caught.value} {connection!r}" for secret in ("t0ken", "k3y"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hr": None}, "missing: hr"),
        ({"hr": [1]}, "shapes differ"),
        ({"hr": [[1], [2]]}, "shapes differ"),
        ({"hr": ["x", "y"]}, "column hr"),
        ({"temp": [object(), 1]}, "column temp"),
    ],
)
def test_columns_that_are_none_are_not_sent(way, change, said):
    columns = {name: values for name, values in {**COLUMNS, **change}.items() if values is not None}
    with rest(outputs(1, 2)) as server, pytest.raises(clients.BadRequestError, match=said):
        ask(way, to(server.port, "rest"), "predict", columns)
    assert not server.asked
