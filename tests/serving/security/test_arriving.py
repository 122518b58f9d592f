"""gRPC calls whose message is slow, and those that are left."""

from __future__ import annotations

import asyncio
import logging
import time

import grpc
import pytest
from grpc._cython import cygrpc

from bike_pipeline.serving.security import limits
from bike_pipeline.serving.security.guard import Guard
from bike_pipeline.serving.security.rpc import GuardInterceptor
from bike_pipeline.serving.statuses import Code, StatusError
from tests.serving.security.small_server import run, settings_of


def test_a_call_that_is_cancelled_before_its_error_leaves_no_traceback(tmp_path, caplog):
    class Gone:
        """A context whose client is gone: nothing can be sent to it any more."""

        def peer(self):
            return "ipv4:127.0.0.1:5000"

        async def read(self):
            return b"no message"

        async def abort(self, *_):
            raise cygrpc.ExecuteBatchError('Failed "execute_batch"')

    async def aborts(_request, context):
        await context.abort(grpc.StatusCode.NOT_FOUND, "no such model")

    async def refuses(_request, _context):
        raise StatusError(Code.RESOURCE_EXHAUSTED, "too often")

    async def asks(behaviour):
        interceptor = GuardInterceptor(Guard(settings_of(tmp_path)))
        handler = grpc.unary_unary_rpc_method_handler(behaviour)

        async def found(_details):
            return handler

        details = type("Details", (), {"method": "/a.B/C", "invocation_metadata": ()})
        wrapped = await interceptor.intercept_service(found, details)
        with pytest.raises(asyncio.CancelledError):
            await wrapped.stream_unary(None, Gone())

    for behaviour in (aborts, refuses):
        run(asks(behaviour))
    # gRPC itself sends an answer, and logs that it could not.
    try:
        raise cygrpc.ExecuteBatchError("Failed")
    except cygrpc.ExecuteBatchError:
        logging.getLogger("grpc._cython.cygrpc").exception("Unexpected error raised by servicer method")
    assert "Traceback" not in caplog.text
    assert "failed" not in caplog.text


def test_slow_messages_are_few_and_those_of_whom_they_are_most_go_first(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "_SLOW_SECONDS", 0.1)
    most = settings_of(tmp_path, "limits.bodies_bytes=3000", "limits.read_seconds=1").serving.security.limits

    class Slow:
        async def read(self):
            await asyncio.sleep(60)

    class Quick:
        async def read(self):
            return b"message"

    async def asks():
        found = limits.Arriving(most, 1000)
        clients = ["greedy"] * 6 + ["other"]
        began = time.monotonic()
        reads = [asyncio.create_task(found.read(Slow(), client)) for client in clients]
        assert await found.read(Quick(), "third") == b"message"
        ended = await asyncio.gather(*reads, return_exceptions=True)
        assert time.monotonic() - began < 30
        return [(client, refusal.code.name) for client, refusal in zip(clients, ended, strict=True)]

    ended = run(asks())
    # Three may be slow: two of the greedy client's six and the other one's, which are ended when they take too long.
    assert sorted(ended) == [("greedy", "DEADLINE_EXCEEDED")] * 2 + [("greedy", "UNAVAILABLE")] * 4 + [
        ("other", "DEADLINE_EXCEEDED")
    ]
