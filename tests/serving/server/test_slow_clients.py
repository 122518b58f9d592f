"""Clients that send too slowly, too much or only a half cost a server nothing."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tests.serving.server.small_asking import get, raw
from tests.serving.server.small_server import run, serving, settings_of


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
        async with serving(settings_of(tmp_path, "request_timeout_seconds=0.5")) as (rest, _):
            answer = await raw(rest, sent)
            assert answer.startswith(b"HTTP/1.1 408")
            assert (await get(rest, "/"))[0] == 200

    run(asks())


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
