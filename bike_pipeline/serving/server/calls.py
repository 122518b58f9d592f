"""What stands before the gRPC handlers: the key, which folders a request may name, and what an error tells."""

from __future__ import annotations

import asyncio
import functools
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
from grpc import aio

from bike_pipeline.serving.server.access import Quiet, check_key, check_model_config, report
from bike_pipeline.serving.statuses import StatusError, invalid

_grpc_log = logging.getLogger("grpc._cython.cygrpc")
# gRPC logs an answer that a cancelled call did not take as an unforeseen error.
_QUIET = Quiet(aio.InternalError, "a client went away")
CODES = {code.value[0]: code for code in grpc.StatusCode}
_HEALTH = "/grpc.health.v1.Health/"
RELOAD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"


class CallInterceptor(aio.ServerInterceptor):  # type: ignore[misc]
    """Lets calls pass to their handlers, or ends them with a status of its own."""

    def __init__(self, key: str, roots: Sequence[str]) -> None:
        """Ask for a key, if there is one; `roots` are the folders below which a request may name a base path."""
        self._key, self._roots = key, roots
        _grpc_log.addFilter(_QUIET)
        self._wrapped: dict[str, Any] = {}

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """Return the handler of a call, or one that refuses it before its message is read."""
        method: str = handler_call_details.method
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        # Probes have no key.
        if self._key and not method.startswith(_HEALTH):
            metadata = dict(handler_call_details.invocation_metadata or ())
            try:
                check_key(self._key, str(metadata.get("authorization", "")))
            except StatusError as refusal:
                return grpc.stream_unary_rpc_method_handler(functools.partial(_refuse_unread, refusal))
        if method not in self._wrapped:
            self._wrapped[method] = self._wrap(handler, method)
        return self._wrapped[method]

    def _wrap(self, handler: Any, method: str) -> Any:
        if handler.request_streaming or handler.response_streaming:
            return handler
        behaviour = handler.unary_unary

        async def guarded(request: Any, context: Any) -> Any:
            try:
                return await answered(request, context)
            except aio.InternalError:
                # What an answer or an error ends with that nobody takes any more: the call was cancelled.
                raise asyncio.CancelledError from None

        async def answered(request: Any, context: Any) -> Any:
            try:
                if method == RELOAD:
                    check_model_config(_reload_request(request).config, self._roots)
                return await behaviour(request, context)
            except StatusError as refusal:
                await _refuse(refusal, context)
            except (aio.AbortError, aio.InternalError):
                raise
            # CancelledError is none of these: then nobody waits for an answer.
            except Exception as error:  # noqa: BLE001 (no error's text or traceback reaches a client)
                await context.abort(grpc.StatusCode.INTERNAL, report(error, f"gRPC {method}"))

        return grpc.unary_unary_rpc_method_handler(guarded, handler.request_deserializer, handler.response_serializer)


async def _refuse_unread(refusal: StatusError, _messages: Any, context: Any) -> None:
    await _refuse(refusal, context)


def _reload_request(request: Any) -> Any:
    """Return the message, which a handler may want to read itself."""
    if not isinstance(request, bytes):
        return request
    from google.protobuf.message import DecodeError

    from bike_pipeline.serving.protos import model_management_pb2

    try:
        return model_management_pb2.ReloadConfigRequest.FromString(request)
    except DecodeError:
        raise invalid("The message is not what this method takes.") from None


async def _refuse(refusal: StatusError, context: Any) -> None:
    trailing: tuple[tuple[str, str], ...] = ()
    if wait := refusal.retry_after:
        # gRPC's own clients wait that long before a retry (gRFC A6); others read the name that HTTP uses.
        trailing = (("grpc-retry-pushback-ms", str(math.ceil(wait * 1000))), ("retry-after", str(math.ceil(wait))))
    await context.abort(CODES[refusal.code], refusal.message, trailing)


def grpc_options() -> list[tuple[str, int]]:
    """Return options for `grpc.aio.server`: connections that were lost without a word are found out and freed."""
    return [
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.max_concurrent_streams", 1000),
    ]
