"""Clients that send too slowly, too much or only a half cost a server nothing."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tests.serving.security.asking import call, get, raw
from tests.serving.security.small_server import run, serving, settings_of


@pytest.mark.parametrize(
    "sent",
    [
        b"POST /v1/models/many:predict HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf",
        b"POST /v1/models/many:predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhal",
    ],
    ids=["length", "chunked"],
)
def test_a_body_that_does_not_come_is_not_waited_for(tmp_path, sent):
    async def asks():
        async with serving(settings_of(tmp_path, "limits.read_seconds=0.5")) as (rest, _):
            answer = await raw(rest, sent)
            assert answer.startswith(b"HTTP/1.1 408")
            assert (await get(rest, "/"))[0] == 200

    run(asks())


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\nX-A: b"], ids=["none", "line", "header"]
)
def test_headers_that_do_not_come_are_not_waited_for(tmp_path, sent):
    async def asks():
        async with serving(settings_of(tmp_path, "limits.idle_seconds=0.5")) as (rest, _):
            assert await raw(rest, sent) == b""
            answer = await raw(rest, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + sent)
            assert answer.startswith(b"HTTP/1.1 200")

    run(asks())


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX-A: " + b"a" * 9000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X-%d: a\r\n" % i for i in range(80)) + b"\r\n",
    ],
    ids=["line", "header", "headers"],
)
def test_headers_that_are_too_long_or_too_many_are_refused_without_filling_the_log(tmp_path, sent, caplog):
    async def asks():
        async with serving(settings_of(tmp_path)) as (rest, _):
            # What is no HTTP is refused by aiohttp's parser, before any handler, in its own words.
            assert b" 400 " in (await raw(rest, sent)).partition(b"\r\n")[0]
            assert (await get(rest, "/"))[0] == 200

    with caplog.at_level(logging.DEBUG):
        run(asks())
    assert "no HTTP request" in caplog.text
    assert "Traceback" not in caplog.text


def test_a_client_that_goes_away_in_the_middle_of_its_body_leaves_no_traceback(tmp_path, caplog):
    async def asks():
        async with serving(settings_of(tmp_path)) as (rest, _):
            host, _, port = rest.partition(":")
            for tail in (b"half", b""):
                _, writer = await asyncio.open_connection(host, int(port))
                writer.write(b"POST /v1/models/many:predict HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n" + tail)
                await writer.drain()
                await asyncio.sleep(0.1)
                writer.transport.abort()
            await asyncio.sleep(0.1)
            assert (await get(rest, "/"))[0] == 200

    with caplog.at_level(logging.INFO):
        run(asks())
    assert "Traceback" not in caplog.text
    assert "failed" not in caplog.text


def test_too_much_metadata_is_refused(tmp_path):
    async def asks():
        async with serving(settings_of(tmp_path)) as (_, rpc):
            assert (await call(rpc, (("x-a", "a" * 40_000),)))[0] == "RESOURCE_EXHAUSTED"
            assert (await call(rpc))[0] == "OK"

    run(asks())
