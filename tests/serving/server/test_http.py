"""What aiohttp or a browser would say in their own words is said as the API says it."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest

from bike_pipeline.serving.server.access import KEY_VARIABLE
from tests.serving.server.small_asking import get, raw
from tests.serving.server.small_server import MANY, run, serving, settings_of


def parts(answer):
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return int(status.split()[1]), {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}, body


@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400, "no HTTP"),
        (b"GET / HTTP/1.1\r\nbad header\r\n\r\n", 400, "no HTTP"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400, "no HTTP"),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", 400, "too long"),
        (b"GET / HTTP/1.1\r\nX-A: " + b"a" * 9000 + b"\r\n\r\n", 400, "too long"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: more\r\nContent-Length: 1\r\n\r\n", 417, "100-continue"),
        (b"POST %s HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" % MANY.encode(), 400, "HTTP"),
    ],
    ids=["tls", "header", "length", "long-line", "long-header", "expect", "chunk"],
)
def test_what_is_no_http_is_answered_with_the_errors_json(tmp_path, sent, status, said):
    async def asks():
        async with serving(settings_of(tmp_path)) as (rest, _):
            return parts(await raw(rest, sent))

    found, headers, body = run(asks())
    assert found == status
    assert headers["content-type"].startswith("application/json")
    assert said in json.loads(body)["error"] or "cannot be read" in json.loads(body)["error"]
    # Nothing of Python's or aiohttp's own.
    assert b"b'" not in body


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, gzip", "x"])
def test_an_unknown_content_encoding_is_told_with_those_that_are_known(tmp_path, encoding):
    async def asks():
        async with serving(settings_of(tmp_path)) as (rest, _):
            return await get(rest, MANY, {"Content-Encoding": encoding}, method="POST", data=b"{}")

    status, content, headers = run(asks())
    assert (status, headers["Accept-Encoding"]) == (415, "gzip, deflate")
    assert "gzip, deflate" in content
    assert "install" not in content


def _bare(body):
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("GZIP", lambda body: gzip.compress(body[:9]) + gzip.compress(body[9:])),
        ("deflate", zlib.compress),
        ("deflate", _bare),
        ("identity", bytes),
    ],
    ids=["gzip", "members", "zlib", "bare-deflate", "identity"],
)
@pytest.mark.parametrize("size", [20, 300_000])
def test_a_packed_body_is_unpacked_whole(tmp_path, encoding, pack, size):
    body = b'"' + b"0123456789" * (size // 10) + b'"'

    async def asks():
        async with serving(settings_of(tmp_path)) as (rest, _):
            whole = await get(rest, MANY, {"Content-Encoding": encoding}, method="POST", data=pack(body))
            cut = None
            if encoding != "identity":
                cut = await get(rest, MANY, {"Content-Encoding": encoding}, method="POST", data=pack(body)[:-9])
            return whole[:2], cut

    whole, cut = run(asks())
    assert whole == (200, json.dumps({"bytes": len(body)}))
    assert cut is None or cut[0] == 400


def test_every_answer_to_a_page_says_what_its_preflight_said(tmp_path):
    async def asks():
        async with serving(settings_of(tmp_path, "limits.rows=1")) as (rest, _):
            page = {"Origin": "https://example.org"}
            asked = {**page, "Access-Control-Request-Method": "POST"}
            preflight = (await get(rest, MANY, asked, method="OPTIONS"))[2]
            answers = [
                await get(rest, MANY, page, method="POST", data=b"{}"),
                await get(rest, MANY, page, method="POST", data=b"[" + b"1," * 99 + b"1]"),
                await get(rest, "/fail", page),
            ]
            return preflight, [(status, headers) for status, _, headers in answers], (await get(rest, MANY))[2]

    preflight, answers, elsewhere = run(asks())
    assert preflight["Access-Control-Allow-Origin"] == "*"
    # A page has to be able to send its key.
    assert {"Authorization", "X-Request-Id"} <= set(preflight["Access-Control-Allow-Headers"].split(", "))
    assert [status for status, _ in answers] == [200, 400, 500]
    assert [headers["Access-Control-Allow-Origin"] for _, headers in answers] == ["*"] * 3
    assert "Access-Control-Allow-Origin" not in elsewhere


def test_a_body_is_asked_for_only_when_its_client_has_the_key(tmp_path, monkeypatch):
    key = "k" * 40
    monkeypatch.setenv(KEY_VARIABLE, key)
    start = f"POST {MANY} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: 2\r\n"

    async def asks():
        async with serving(settings_of(tmp_path, "request_timeout_seconds=2")) as (rest, _):
            stranger = await raw(rest, f"{start}\r\n".encode())
            known = await raw(rest, f"{start}Authorization: Bearer {key}\r\n\r\n".encode())
            return stranger, known

    stranger, known = run(asks())
    assert stranger.startswith(b"HTTP/1.1 401")
    assert known.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 408")
