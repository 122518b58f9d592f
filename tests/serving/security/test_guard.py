"""The guard before both protocols, asked over real connections."""

from __future__ import annotations

import asyncio
import json
import logging
import time

import grpc
import jwt
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bike_pipeline.serving.security import api_keys, exposure
from tests.serving.security.asking import METRICS, call, get, key_file, with_keys
from tests.serving.security.small_server import MANY, SECRET, run, serving, settings_of


def test_without_methods_everybody_is_let_in(tmp_path):
    async def asks():
        async with serving(settings_of(tmp_path)) as (rest, rpc):
            assert (await get(rest, "/v1/models/bikes"))[0] == 200
            assert (await call(rpc))[0] == "OK"
            assert (await call(rpc, reload=str(tmp_path / "serving" / "bike_demand")))[0] == "OK"

    run(asks())


def test_a_key_lets_in_over_both_protocols_and_nothing_else_does(tmp_path):
    _, key = api_keys.create(key_file(tmp_path), "dashboard", ["predict"])

    async def asks():
        async with serving(with_keys(tmp_path)) as (rest, rpc):
            for headers in ({"X-API-Key": key}, {"Authorization": f"Bearer {key}"}, {"authorization": f"bearer {key}"}):
                assert (await get(rest, "/v1/models/bikes", headers))[0] == 200
                assert (await call(rpc, tuple((k.lower(), v) for k, v in headers.items())))[0] == "OK"
            for headers in ({}, {"X-API-Key": key[:-1]}, {"Authorization": key}, {"Authorization": f"Basic {key}"}):
                status, content, answered = await get(rest, "/v1/models/bikes", headers)
                assert status == 401
                assert key not in content
                assert answered["WWW-Authenticate"].startswith("Bearer")
                code, details, _ = await call(rpc, tuple((k.lower(), v) for k, v in headers.items()))
                assert code == "UNAUTHENTICATED"
                assert key not in details
            asks_for_cors = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
            assert (await get(rest, "/v1/models/bikes", asks_for_cors, method="OPTIONS"))[0] == 200
            assert (await get(rest, "/v1/models/bikes", method="OPTIONS"))[0] == 401

    run(asks())


def test_a_token_lets_in_over_both_protocols_beside_keys(tmp_path):
    secret = "0123456789abcdef" * 4
    (tmp_path / "secret").write_text(secret)
    _, key = api_keys.create(key_file(tmp_path), "dashboard", ["predict"])
    trusted = {"algorithms": ["HS256"], "key_file": str(tmp_path / "secret"), "issuer": "login", "audience": "bikes"}
    settings = settings_of(
        tmp_path, "authentication.methods=[api_keys, jwt]", f"authentication.jwt={json.dumps(trusted)}"
    )

    def bearer(scope, **more):
        claims = {"iss": "login", "aud": "bikes", "sub": "batch", "exp": time.time() + 60, "scope": scope, **more}
        return f"Bearer {jwt.encode(claims, secret, algorithm='HS256')}"

    async def asks():
        async with serving(settings) as (rest, rpc):
            for authorization, status, code in (
                (bearer("predict"), 200, "OK"),
                (f"Bearer {key}", 200, "OK"),
                (bearer("openid"), 403, "PERMISSION_DENIED"),
                (bearer("predict", aud="cars"), 401, "UNAUTHENTICATED"),
                (bearer("predict", exp=1), 401, "UNAUTHENTICATED"),
            ):
                assert (await get(rest, "/v1/models/bikes", {"Authorization": authorization}))[0] == status
                assert (await call(rpc, (("authorization", authorization),)))[0] == code
            # A token is no key.
            assert (await get(rest, "/", {"X-API-Key": bearer("predict").split()[1]}))[0] == 401

    run(asks())


def test_health_and_metrics_are_open_or_not_as_the_settings_say(tmp_path):
    api_keys.create(key_file(tmp_path), "dashboard", ["predict"])

    async def healthy(address):
        async with grpc.aio.insecure_channel(address) as channel:
            try:
                await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20)
            except grpc.aio.AioRpcError as error:
                return error.code().name
        return "OK"

    async def watches(address):
        async with grpc.aio.insecure_channel(address) as channel:
            try:
                async for _ in health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=20):
                    return "OK"
            except grpc.aio.AioRpcError as error:
                return error.code().name

    async def asks():
        async with serving(with_keys(tmp_path)) as (rest, rpc):
            assert (await get(rest, METRICS))[0] == 200
            assert (await get(rest, METRICS + "/x"))[0] == 401
            assert await healthy(rpc) == "OK"
            assert await watches(rpc) == "OK"
        closed = with_keys(tmp_path, "authentication.open_health=false", "authentication.open_metrics=false")
        async with serving(closed) as (rest, rpc):
            assert (await get(rest, METRICS))[0] == 401
            assert await healthy(rpc) == "UNAUTHENTICATED"
            assert await watches(rpc) == "UNAUTHENTICATED"

    run(asks())


def test_changing_what_is_served_needs_the_admin_scope_and_asking_needs_predict(tmp_path):
    _, predict = api_keys.create(key_file(tmp_path), "dashboard", ["predict"])
    _, admin = api_keys.create(key_file(tmp_path), "operator", ["admin"])
    served = str(tmp_path / "serving" / "bike_demand")

    async def asks():
        async with serving(with_keys(tmp_path)) as (rest, rpc):
            assert (await call(rpc, reload=served))[0] == "UNAUTHENTICATED"
            assert (await call(rpc, (("x-api-key", predict),), reload=served))[0] == "PERMISSION_DENIED"
            assert (await call(rpc, (("x-api-key", admin),), reload=served))[0] == "OK"
            assert (await call(rpc, (("x-api-key", admin),)))[0] == "PERMISSION_DENIED"
            assert (await get(rest, "/v1/models/bikes", {"X-API-Key": admin}))[0] == 403
            for path in ("/etc", f"{served}/../../../etc", "", "bike_demand"):
                assert (await call(rpc, (("x-api-key", admin),), reload=path))[0] == "PERMISSION_DENIED"

    run(asks())


def test_no_text_of_an_unforeseen_error_reaches_a_client_and_all_of_it_the_log(tmp_path, caplog):
    async def asks():
        async with serving(settings_of(tmp_path)) as (rest, rpc):
            return await get(rest, "/fail"), await call(rpc, name="fail")

    with caplog.at_level(logging.ERROR):
        (status, content, _), (code, details, _) = run(asks())
    assert (status, code) == (500, "INTERNAL")
    for text in (content, details):
        assert SECRET not in text
        assert "KeyError" not in text
        request_id = text.split("request id ")[1][:16]
        assert request_id in caplog.text
    assert caplog.text.count("Traceback") == 2
    assert caplog.text.count(SECRET) >= 2


def test_what_a_handler_answers_itself_passes(tmp_path):
    async def asks():
        async with serving(settings_of(tmp_path)) as (_, rpc):
            assert (await call(rpc, name="none"))[:2] == ("NOT_FOUND", "no such model")

    run(asks())


def test_a_body_that_is_too_large_too_deep_or_holds_too_much_is_refused(tmp_path):
    settings = settings_of(tmp_path, "limits.json_depth=8", "limits.rows=10")

    async def chunks():
        for _ in range(40):
            yield b" " * 1000

    async def asks():
        async with serving(settings, max_bytes=20_000) as (rest, _):
            assert (await get(rest, MANY, method="POST", data=b" " * 20_000))[0] == 200
            for body in (b" " * 20_001, chunks()):
                status, content, headers = await get(rest, MANY, method="POST", data=body)
                assert status == 413
                assert "20000 bytes" in content
                assert headers["Connection"] == "close"
            assert (await get(rest, MANY, method="POST", data=b"[" * 8 + b"]" * 8))[0] == 200
            assert (await get(rest, MANY, method="POST", data=b"[" * 9 + b"]" * 9))[0] == 400
            assert (await get(rest, MANY, method="POST", data=b"[" + b"1," * 600 + b"1]"))[0] == 400

    run(asks())


def test_a_small_body_that_unpacks_to_a_large_one_is_refused(tmp_path):
    import gzip

    async def asks():
        async with serving(settings_of(tmp_path), max_bytes=20_000) as (rest, _):
            bomb = gzip.compress(b" " * 5_000_000)
            assert len(bomb) < 20_000
            packed = {"Content-Encoding": "gzip"}
            assert (await get(rest, MANY, packed, method="POST", data=bomb))[0] == 413
            assert (await get(rest, MANY, packed, method="POST", data=b"no gzip"))[0] == 400
            small = await get(rest, MANY, packed, method="POST", data=gzip.compress(b"{}"))
            assert small[:2] == (200, '{"bytes": 2}')

    run(asks())


def test_a_key_that_is_made_or_revoked_counts_in_a_running_server(tmp_path):
    path = key_file(tmp_path)
    old, old_key = api_keys.create(path, "dashboard", ["predict"])

    async def until(address, key, status):
        for _ in range(200):
            if (await get(address, "/v1/models/bikes", {"X-API-Key": key}))[0] == status:
                return True
            await asyncio.sleep(0.05)
        return False

    async def asks():
        async with serving(with_keys(tmp_path)) as (rest, _):
            answered = []

            async def keeps_asking(key, until_set):
                while not until_set.is_set():
                    answered.append((await get(rest, "/v1/models/bikes", {"X-API-Key": key()}))[0])

            current, done = {"key": old_key}, asyncio.Event()
            clients = [asyncio.create_task(keeps_asking(lambda: current["key"], done)) for _ in range(4)]
            _, new_key = api_keys.create(path, "dashboard", ["predict"])
            assert await until(rest, new_key, 200)
            current["key"] = new_key
            # Nobody has a request under way that still carries the old key.
            await asyncio.sleep(0.3)
            api_keys.revoke(path, old.id)
            assert await until(rest, old_key, 401)
            path.write_text("half a fi")
            await asyncio.sleep(1.2)
            assert await until(rest, new_key, 200)
            assert (await get(rest, "/v1/models/bikes", {"X-API-Key": old_key}))[0] == 401
            done.set()
            await asyncio.gather(*clients)
            assert set(answered) == {200}
            assert len(answered) > 20

    run(asks())


@pytest.mark.parametrize(
    ("host", "assignments", "said"),
    [
        ("127.0.0.1", (), ""),
        ("::1", (), ""),
        ("localhost", (), ""),
        ("0.0.0.0", (), "without TLS (serving.security.tls) and without authentication"),
        ("::", (), "without TLS"),
        ("bikes.example.org", (), "without TLS"),
        ("0.0.0.0", ("authentication.methods=[api_keys]",), "without TLS (serving.security.tls)"),
        ("0.0.0.0", ("tls={certificate_file: a, key_file: b}",), "without authentication"),
        ("0.0.0.0", ("tls={certificate_file: a, key_file: b, client_ca_file: c}",), ""),
        ("0.0.0.0", ("tls={certificate_file: a, key_file: b}", "authentication.methods=[api_keys]"), ""),
    ],
)
def test_the_warning_says_what_is_open_to_other_machines(tmp_path, host, assignments, said):
    warning = exposure(settings_of(tmp_path, *assignments), host)
    assert (said in warning) if said else not warning
    assert not said or warning.startswith(f"warning: {host} ")
