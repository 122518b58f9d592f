"""Who may ask the embedded server, and what stands before its handlers, asked over real connections."""

from __future__ import annotations

import asyncio
import logging

import grpc
import pytest
from grpc._cython import cygrpc

from bike_pipeline.errors import ConfigurationError
from bike_pipeline.serving.server.access import KEY_VARIABLE, check_exposure, server_key
from bike_pipeline.serving.server.calls import CallInterceptor
from bike_pipeline.serving.statuses import Code, StatusError
from bike_pipeline.settings import load_settings
from tests.serving.server.small_asking import call, get
from tests.serving.server.small_server import MANY, SECRET, run, serving, settings_of

KEY = "0123456789abcdef" * 2


def test_without_a_key_everybody_is_let_in(tmp_path):
    async def asks():
        async with serving(settings_of(tmp_path)) as (rest, rpc):
            assert (await get(rest, "/v1/models/bikes"))[0] == 200
            assert (await call(rpc))[0] == "OK"
            assert (await call(rpc, reload=str(tmp_path / "serving" / "bike_demand")))[0] == "OK"

    run(asks())


def test_with_a_key_it_alone_lets_in_over_both_protocols(tmp_path):
    (tmp_path / "key").write_text(f"{KEY}\n")

    async def asks():
        async with serving(settings_of(tmp_path, f"key_file={tmp_path / 'key'}")) as (rest, rpc):
            for name, word in (("Authorization", "Bearer"), ("authorization", "bearer")):
                assert (await get(rest, "/v1/models/bikes", {name: f"{word} {KEY}"}))[0] == 200
                assert (await call(rpc, (("authorization", f"{word} {KEY}"),)))[0] == "OK"
            for wrong in ("", KEY, f"Bearer {KEY[:-1]}", f"Basic {KEY}", f"Bearer {KEY}x", "Bearer"):
                headers = {"Authorization": wrong} if wrong else {}
                status, content, answered = await get(rest, "/v1/models/bikes", headers)
                assert status == 401
                assert KEY not in content
                assert answered["WWW-Authenticate"].startswith("Bearer")
                code, details, _ = await call(rpc, (("authorization", wrong),))
                assert code == "UNAUTHENTICATED"
                assert KEY not in details
            asks_for_cors = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
            assert (await get(rest, "/v1/models/bikes", asks_for_cors, method="OPTIONS"))[0] == 200

    run(asks())


@pytest.mark.parametrize("key", ["short", "with a blank " * 4, "ü" * 40])
def test_a_key_that_could_be_guessed_or_not_be_sent_is_refused(tmp_path, monkeypatch, key):
    (tmp_path / "key").write_text(key)
    with pytest.raises(ConfigurationError, match="openssl rand"):
        server_key(settings_of(tmp_path, f"key_file={tmp_path / 'key'}").serving.server)
    monkeypatch.setenv(KEY_VARIABLE, key)
    with pytest.raises(ConfigurationError, match=KEY_VARIABLE):
        server_key(settings_of(tmp_path).serving.server)
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    assert server_key(settings_of(tmp_path, f"key_file={tmp_path / 'none'}").serving.server) == KEY
    monkeypatch.delenv(KEY_VARIABLE)
    with pytest.raises(ConfigurationError, match="cannot read"):
        server_key(settings_of(tmp_path, f"key_file={tmp_path / 'none'}").serving.server)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.org"])
def test_another_address_than_this_machines_needs_the_key(tmp_path, host):
    settings = settings_of(tmp_path, f"host='{host}'").serving.server
    with pytest.raises(ConfigurationError, match="bike-pipeline gateway"):
        check_exposure(settings, "")
    check_exposure(settings, KEY)
    check_exposure(settings_of(tmp_path, f"host='{host}'", "trusted_network=true").serving.server, "")
    check_exposure(settings_of(tmp_path, f"host='{host}'", "socket_folder=/run/bikes").serving.server, "")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_this_machines_address_needs_none(tmp_path, host):
    check_exposure(settings_of(tmp_path, f"host='{host}'").serving.server, "")


def test_settings_of_a_former_release_are_told_where_they_went():
    with pytest.raises(ConfigurationError, match=r"settings of `gateway`.*docs/gateway\.md"):
        load_settings(None, ("serving.security.authentication.methods=[api_keys]",))


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
    settings = settings_of(tmp_path, "limits.json_depth=8", "limits.rows=10", "max_request_bytes=20000")

    async def chunks():
        for _ in range(40):
            yield b" " * 1000

    async def asks():
        async with serving(settings) as (rest, _):
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
        async with serving(settings_of(tmp_path, "max_request_bytes=20000")) as (rest, _):
            bomb = gzip.compress(b" " * 5_000_000)
            assert len(bomb) < 20_000
            packed = {"Content-Encoding": "gzip"}
            assert (await get(rest, MANY, packed, method="POST", data=bomb))[0] == 413
            assert (await get(rest, MANY, packed, method="POST", data=b"no gzip"))[0] == 400
            small = await get(rest, MANY, packed, method="POST", data=gzip.compress(b"{}"))
            assert small[:2] == (200, '{"bytes": 2}')

    run(asks())


def test_a_call_that_is_cancelled_before_its_error_leaves_no_traceback(caplog):
    class Gone:
        """A context whose client is gone: nothing can be sent to it any more."""

        def peer(self):
            return "ipv4:127.0.0.1:5000"

        async def abort(self, *_):
            raise cygrpc.ExecuteBatchError('Failed "execute_batch"')

    async def aborts(_request, context):
        await context.abort(grpc.StatusCode.NOT_FOUND, "no such model")

    async def refuses(_request, _context):
        raise StatusError(Code.RESOURCE_EXHAUSTED, "too often")

    async def asks(behaviour):
        interceptor = CallInterceptor("", ())
        handler = grpc.unary_unary_rpc_method_handler(behaviour)

        async def found(_details):
            return handler

        details = type("Details", (), {"method": "/a.B/C", "invocation_metadata": ()})
        wrapped = await interceptor.intercept_service(found, details)
        with pytest.raises(asyncio.CancelledError):
            await wrapped.unary_unary(b"no message", Gone())

    for behaviour in (aborts, refuses):
        run(asks(behaviour))
    # gRPC itself sends an answer, and logs that it could not.
    try:
        raise cygrpc.ExecuteBatchError("Failed")
    except cygrpc.ExecuteBatchError:
        logging.getLogger("grpc._cython.cygrpc").exception("Unexpected error raised by servicer method")
    assert "Traceback" not in caplog.text
    assert "failed" not in caplog.text
