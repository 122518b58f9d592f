"""Who asks too often is told when to come back."""

from __future__ import annotations

from bike_pipeline.serving.security import api_keys
from bike_pipeline.serving.security.rpc import peer_address
from tests.serving.security.asking import call, get, key_file, with_keys
from tests.serving.security.small_server import run, serving, settings_of


def test_who_asks_too_often_is_told_when_to_come_back_over_both_protocols(tmp_path):
    path = key_file(tmp_path)
    _, busy = api_keys.create(path, "busy", ["predict"])
    _, calm = api_keys.create(path, "calm", ["predict"])
    # So slow that no bucket fills while the test runs.
    settings = with_keys(tmp_path, "limits.requests_per_second=0.001", "limits.burst=4")

    async def asks():
        async with serving(settings) as (rest, rpc):
            for _ in range(2):
                assert (await get(rest, "/v1/models/bikes", {"X-API-Key": busy}))[0] == 200
                assert (await call(rpc, (("x-api-key", busy),)))[0] == "OK"
            status, _, headers = await get(rest, "/v1/models/bikes", {"X-API-Key": busy})
            assert status == 429
            assert 900 <= int(headers["Retry-After"]) <= 1000
            code, _, trailing = await call(rpc, (("x-api-key", busy),))
            assert code == "RESOURCE_EXHAUSTED"
            assert 900 <= int(trailing["retry-after"]) <= 1000
            assert (await get(rest, "/v1/models/bikes", {"X-API-Key": calm}))[0] == 200
            assert [(await get(rest, "/x", {"X-API-Key": "guess"}))[0] for _ in range(6)] == [401] * 4 + [429] * 2
            assert (await get(rest, "/v1/models/bikes", {"X-API-Key": calm}))[0] == 200
            assert (await call(rpc, (("x-api-key", "guess"),)))[0] == "RESOURCE_EXHAUSTED"
            assert (await call(rpc, (("x-api-key", calm),)))[0] == "OK"

    run(asks())


def test_guesses_over_grpc_have_the_rate_of_their_address_too(tmp_path):
    _, key = api_keys.create(key_file(tmp_path), "dashboard", ["predict"])
    settings = with_keys(tmp_path, "limits.requests_per_second=0.001", "limits.burst=3")

    async def asks():
        async with serving(settings) as (rest, rpc):
            for metadata in ((), (("x-api-key", "guess"),), (("authorization", "Bearer guess"),)):
                assert (await call(rpc, metadata))[0] == "UNAUTHENTICATED"
            code, _, trailing = await call(rpc, (("x-api-key", "guess"),))
            assert code == "RESOURCE_EXHAUSTED"
            assert 900 <= int(trailing["retry-after"]) <= 1000
            assert (await get(rest, "/x", {"X-API-Key": "guess"}))[0] == 429
            # It has a rate of its own, and a missing right is no guess.
            assert (await call(rpc, (("x-api-key", key),), reload="/etc"))[0] == "PERMISSION_DENIED"
            assert (await call(rpc, (("x-api-key", key),)))[0] == "OK"

    run(asks())


def test_an_address_has_the_same_name_over_both_protocols():
    peers = ("ipv4:127.0.0.1:5000", "ipv6:%5B::1%5D:5000", "ipv6:%5Bfe80::1%25eth0%5D:5000", "unix:")
    assert [peer_address(peer) for peer in peers] == ["127.0.0.1", "::1", "fe80::1%eth0", ""]


def test_without_keys_the_rate_is_that_of_the_address(tmp_path):
    settings = settings_of(tmp_path, "limits.requests_per_second=0.001", "limits.burst=3")

    async def asks():
        async with serving(settings) as (rest, _):
            assert [(await get(rest, "/"))[0] for _ in range(5)] == [200] * 3 + [429] * 2
        async with serving(settings) as (rest, rpc):
            codes = [(await call(rpc))[0] for _ in range(5)]
            assert codes == ["OK"] * 3 + ["RESOURCE_EXHAUSTED"] * 2
            assert (await get(rest, "/"))[0] == 429

    run(asks())
