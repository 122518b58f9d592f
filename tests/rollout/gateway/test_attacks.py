"""Attacks on the real Envoy before a real server: who is not let in, what is not read, what is not waited for."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from tensorflow_serving.apis import model_management_pb2, model_service_pb2_grpc

from bike_pipeline.rollout.gateway import api_keys
from tests.rollout.gateway import attacking
from tests.rollout.gateway.attacking import ask, call, called, gateway_before, post, raw, status
from tests.serving.running import MODEL, row
from tests.serving.server.asking import request_of, wait_until

LARGEST = 1024 * 1024


@pytest.fixture(scope="module")
def keyed(server, tmp_path_factory):
    """A gateway with API keys and small limits, a key, and the file of the keys."""
    folder = tmp_path_factory.mktemp("keyed")
    file = folder / "workspace" / "keys" / "gateway-keys.json"
    _, key = api_keys.create(file, "dashboard")
    limits = "limits={read_seconds: 1, idle_seconds: 2, request_bytes: 1048576, headers: 32}"
    with gateway_before(server, folder, "authentication.methods=[api_keys]", limits) as gateway:
        yield gateway, key, file


def test_who_has_no_valid_key_gets_nothing_and_is_not_told_why(keyed, tmp_path):
    gateway, key, _ = keyed
    _, other = api_keys.create(tmp_path / "others.json", "dashboard")
    assert status(gateway.address, key) == 200
    assert status(gateway.address, headers={"Authorization": f"Bearer {key}"}) == 200
    assert call(gateway.address, key) == "OK"
    for wrong in ("", other, key[:-4], f"{key[:-8]}AAAAAAAA", "x", "a.b.c", "bike_" + "a" * 43):
        code, text, _ = ask(gateway.address, wrong)
        assert (code, json.loads(text)["error"]) == (
            401,
            "The credentials are missing, or not valid, or not any more.",
        ), wrong
    assert {call(gateway.address, wrong) for wrong in ("", other, "x")} == {"UNAUTHENTICATED"}
    assert status(gateway.address, path="/v1/models/none", body=None) == 401
    # A probe needs no key, and learns nothing.
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(gateway.address) as channel:
        found = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
    assert found.status == health_pb2.HealthCheckResponse.SERVING


def test_keys_begin_end_and_are_revoked_while_a_connection_is_open(keyed):
    gateway, key, file = keyed
    now = datetime.now(UTC)
    made, short = api_keys.create(file, "short", expires=now + timedelta(seconds=4))
    _, late = api_keys.create(file, "late", not_before=now + timedelta(days=1))
    wait_until(lambda: status(gateway.address, short) == 200)
    assert status(gateway.address, late) == 401
    wait_until(lambda: status(gateway.address, short) == 401)
    gone, revoked = api_keys.create(file, "gone")
    wait_until(lambda: status(gateway.address, revoked) == 200)
    with grpc.insecure_channel(gateway.address) as channel:
        assert called(channel, (("x-api-key", revoked),)) == "OK"
        api_keys.revoke(file, gone.id)
        wait_until(lambda: called(channel, (("x-api-key", revoked),)) == "UNAUTHENTICATED")
        assert called(channel, (("x-api-key", key),)) == "OK"
    assert {one.state(datetime.now(UTC)) for one in api_keys.read(file) if one.id == made.id} <= {"active", "expired"}
    assert "revoked" not in file.read_text().replace('"revoked": ', "")
    assert not any(secret in file.read_text() for secret in (key, short, revoked))


def test_when_the_last_key_is_revoked_nobody_is_let_in_and_a_damaged_file_changes_nothing(server, tmp_path):
    file = tmp_path / "workspace" / "keys" / "gateway-keys.json"
    made, key = api_keys.create(file, "only")
    with gateway_before(server, tmp_path, "authentication.methods=[api_keys]") as gateway:
        assert status(gateway.address, key) == 200
        whole = file.read_text()
        file.write_text(whole[:50])
        wait_until(lambda: "the last good keys stay in force" in gateway.errors.read_text())
        assert status(gateway.address, key) == 200
        file.write_text(whole)
        api_keys.revoke(file, made.id)
        wait_until(lambda: status(gateway.address, key) == 401)
        assert call(gateway.address, key) == "UNAUTHENTICATED"


def test_the_body_of_a_stranger_is_not_asked_for(keyed):
    gateway, key, _ = keyed
    waits = post("Content-Length: 100", "Expect: 100-continue", "Connection: close")
    # Envoy says 100 to everybody; the refusal comes right behind it, and the connection ends.
    assert b"HTTP/1.1 401" in raw(gateway.address, waits)
    known = post("Content-Length: 100", "Expect: 100-continue", f"X-API-Key: {key}")
    assert raw(gateway.address, known).startswith(b"HTTP/1.1 100")


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_body_that_is_too_large_is_refused(keyed, chunked):
    gateway, key, _ = keyed
    large = b"x" * (LARGEST + 100_000)
    body = iter([large[i : i + 65536] for i in range(0, len(large), 65536)]) if chunked else large
    try:
        code, text, _ = ask(gateway.address, key, body=body)
    except OSError:
        # The connection ended while the rest was on its way.
        return
    assert code == 413
    assert "error" in json.loads(text)


def test_a_message_that_is_too_large_is_refused(keyed):
    gateway, key, _ = keyed
    large = request_of(*[row(8, 0.5)] * 60_000)
    assert large.ByteSize() > LARGEST
    assert call(gateway.address, key, request=large) in ("RESOURCE_EXHAUSTED", "UNKNOWN", "CANCELLED", "UNAVAILABLE")


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\nX-A: b", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
    ids=["none", "line", "header", "preface"],
)
def test_headers_that_do_not_come_are_not_waited_for(keyed, sent):
    gateway, _, _ = keyed
    assert b"200" not in raw(gateway.address, sent)


@pytest.mark.parametrize("more", ["Content-Length: 1000", "Transfer-Encoding: chunked"], ids=["length", "chunked"])
def test_a_body_that_does_not_come_is_not_waited_for_and_holds_no_server(keyed, more):
    gateway, key, _ = keyed
    assert raw(gateway.address, post(more, f"X-API-Key: {key}", body=b"5\r\n")).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (post("X-Long: " + "a" * 9000), 431),
        (post(*(f"X-{number}: a" for number in range(40))), 431),
        (post(path="/" + "a" * 9000), 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET / HTTP/1.0\r\n\r\n", 426),
        (b"GET / HTTP/9.9\r\nHost: a\r\n\r\n", 426),
        (post("Content-Length: 5", "Content-Length: 6", body=b"aaaaaa"), 400),
        (
            post("Content-Length: 5", "Transfer-Encoding: chunked", body=b"0\r\n\r\nGET /monitoring HTTP/1.1\r\n\r\n"),
            400,
        ),
        (post("Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"), 501),
        (post("X-A: a\0b"), 400),
        (post("Content-Length: -1"), 400),
        (b"GET http://elsewhere.example/etc/passwd HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 401),
        (b"CONNECT elsewhere.example:443 HTTP/1.1\r\nHost: elsewhere.example:443\r\n\r\n", 408),
    ],
)
def test_what_is_too_long_too_many_ambiguous_or_no_http_is_refused(keyed, sent, code):
    gateway, _, _ = keyed
    answer = raw(gateway.address, sent)
    first = answer.partition(b"\r\n")[0]
    assert first.startswith(b"HTTP/1.1 %d" % code), answer[:300]
    # And what stood behind it was not taken for another request.
    assert answer.count(b"HTTP/1.1") == 1


def test_too_much_metadata_is_refused(keyed):
    gateway, key, _ = keyed
    assert call(gateway.address, key, metadata=(("x-long", "a" * 20_000),)) != "OK"
    assert call(gateway.address, key, metadata=tuple((f"x-{number}", "a") for number in range(60))) != "OK"
    assert call(gateway.address, key) == "OK"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        (f"/v1/models/{MODEL}%2f..%2f..%2fmonitoring%2fprometheus%2fmetrics", 400),
        (f"/v1/models/{MODEL}%5c..%5cmetrics", 400),
        (f"/v1/models/{MODEL}/../../../monitoring/prometheus/metrics", 404),
        ("/monitoring/prometheus/metrics", 404),
        ("/v1/models/other", 404),
        ("/v1/models/..", 404),
        ("/openapi.json", 404),
        ("/etc/passwd", 404),
        ("//monitoring//prometheus/metrics", 404),
        (f"/v1/models/{MODEL}:predict/../../../../metrics", 404),
        (f"/v1/./models/{MODEL}", 200),
    ],
)
def test_only_the_models_own_paths_are_routed(keyed, path, code):
    gateway, key, _ = keyed
    found, text, _ = ask(gateway.address, key, path=path, body=None)
    assert found == code, text
    assert code == 200 or "process_resident" not in text


def test_nobody_changes_what_is_served_through_the_gateway(keyed):
    gateway, key, _ = keyed
    request = model_management_pb2.ReloadConfigRequest()
    request.config.model_config_list.config.add(name=MODEL, base_path="/etc", model_platform="tensorflow")
    with grpc.insecure_channel(gateway.address) as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        with pytest.raises(grpc.RpcError) as error:
            stub.HandleReloadConfigRequest(request, metadata=(("x-api-key", key),), timeout=60)
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_what_only_the_server_can_see_it_refuses_behind_the_gateway_too(keyed):
    gateway, key, _ = keyed
    deep = b'{"instances": ' + b"[" * 1000 + b"]" * 1000 + b"}"
    assert status(gateway.address, key, body=deep) == 400
    many = b'{"instances": [' + b"{}," * 200_000 + b"{}]}"
    assert status(gateway.address, key, body=many) == 400
    claimed = request_of(row(8, 0.5))
    for tensor in claimed.inputs.values():
        tensor.tensor_shape.dim[0].size = 2**40
    assert call(gateway.address, key, request=claimed) == "INVALID_ARGUMENT"
    bomb = gzip.compress(b"0" * 200_000_000)
    assert len(bomb) < LARGEST
    assert status(gateway.address, key, body=bomb, headers={"Content-Encoding": "gzip"}) == 413
    assert status(gateway.address, key) == 200


def test_no_name_that_a_client_gives_itself_is_believed_or_breaks_the_log(keyed):
    gateway, key, _ = keyed
    odd = 'a", "bike": {"track": "canary"}, "x": "\\'
    spoofed = {
        "X-Request-Id": odd,
        "X-Forwarded-For": "10.9.9.9",
        "X-Envoy-Upstream-Rq-Timeout-Ms": "1",
        "X-Bike-Client": "x",
    }
    assert status(gateway.address, key, headers=spoofed) == 200
    wait_until(lambda: any(line["http"]["request"].get("id") == odd for line in gateway.lines()))
    line = next(line for line in gateway.lines() if line["http"]["request"].get("id") == odd)
    assert line["bike"]["track"] == "stable"
    assert line["bike"]["client"].startswith("dashboard ")
    text = gateway.access_log.read_text()
    assert key not in text
    assert "10.9.9.9" not in text


def test_envoys_own_interface_is_no_port(keyed):
    import psutil

    gateway, _, _ = keyed
    envoy = attacking.children(gateway.process.pid)["envoy"]
    listening = {c.laddr.port for c in psutil.Process(envoy).net_connections("inet") if c.status == "LISTEN"}
    assert listening == {int(gateway.address.rpartition(":")[2])}
    assert gateway.admin.stat().st_mode & 0o077 == 0
    assert gateway.admin.parent.stat().st_mode & 0o077 == 0
