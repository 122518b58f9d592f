"""The guard before the gRPC handlers: one interceptor."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import grpc
from grpc import aio

from bike_pipeline.serving.security.guard import Guard, report
from bike_pipeline.serving.security.identity import ADMIN, PREDICT, Refusal
from bike_pipeline.serving.security.paths import check_model_config

_HEALTH = "/grpc.health.v1.Health/"
RELOAD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"


class GuardInterceptor(aio.ServerInterceptor):  # type: ignore[misc]
    """Lets calls pass to their handlers, or ends them with a status of its own."""

    def __init__(self, guard: Guard) -> None:
        """Stand before the handlers of one server."""
        self._guard = guard
        self._open_health = guard.authentication.settings.open_health
        self._wrapped: dict[str, tuple[Any, Any]] = {}

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """Return the handler of a call, or one that refuses it before its message is read."""
        method: str = handler_call_details.method
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        is_open = self._open_health and method.startswith(_HEALTH)
        if self._guard.authentication.required and not is_open:
            authorization, api_key = _credentials(handler_call_details.invocation_metadata)
            try:
                # The address is known to handlers only.
                self._guard.admit(ADMIN if method == RELOAD else PREDICT, authorization, api_key, "")
            except Refusal as refusal:
                return _refusing(handler, refusal)
        known = self._wrapped.get(method)
        if known is None or known[0] is not handler:
            known = (handler, self._wrap(handler, method, is_open))
            self._wrapped[method] = known
        return known[1]

    def _wrap(self, handler: Any, method: str, is_open: bool) -> Any:
        if handler.request_streaming or handler.response_streaming:
            return handler
        guard, behaviour = self._guard, handler.unary_unary
        by_address = not guard.authentication.required and not is_open

        async def guarded(request: Any, context: Any) -> Any:
            try:
                if by_address:
                    guard.admit(PREDICT, "", "", _address(context.peer()))
                if method == RELOAD:
                    check_model_config(_reload_request(request).config, guard.roots)
                return await behaviour(request, context)
            except Refusal as refusal:
                await _abort(context, refusal)
            except aio.AbortError:
                raise
            # CancelledError is none of these: then nobody waits for an answer.
            except Exception as error:  # noqa: BLE001 (no error's text or traceback reaches a client)
                await context.abort(grpc.StatusCode.INTERNAL, report(error, f"gRPC {method}"))

        return grpc.unary_unary_rpc_method_handler(guarded, handler.request_deserializer, handler.response_serializer)


def _reload_request(request: Any) -> Any:
    """Return the message, which a handler may want to read itself."""
    if not isinstance(request, bytes):
        return request
    from google.protobuf.message import DecodeError

    from bike_pipeline.serving.server.protos import model_management_pb2

    try:
        return model_management_pb2.ReloadConfigRequest.FromString(request)
    except DecodeError:
        raise Refusal(400, "INVALID_ARGUMENT", "The message is not what this method takes.") from None


def _credentials(metadata: Iterable[tuple[str, str | bytes]]) -> tuple[str, str]:
    found = {key: value for key, value in metadata or () if key in {"authorization", "x-api-key"}}
    authorization, api_key = found.get("authorization", ""), found.get("x-api-key", "")
    return (
        authorization if isinstance(authorization, str) else "",
        api_key if isinstance(api_key, str) else "",
    )


def _address(peer: str) -> str:
    # ipv4:127.0.0.1:5000, ipv6:%5B::1%5D:5000, unix:
    return peer.rpartition(":")[0]


async def _abort(context: Any, refusal: Refusal) -> None:
    trailing: tuple[tuple[str, str], ...] = ()
    if refusal.retry_after:
        milliseconds = math.ceil(refusal.retry_after * 1000)
        # gRPC's own clients wait that long before a retry (gRFC A6); others read the name that HTTP uses.
        trailing = (
            ("grpc-retry-pushback-ms", str(milliseconds)),
            ("retry-after", str(math.ceil(refusal.retry_after))),
        )
    await context.abort(getattr(grpc.StatusCode, refusal.code), refusal.message, trailing)


def _refusing(handler: Any, refusal: Refusal) -> Any:
    async def refuse(_request: Any, context: Any) -> None:
        await _abort(context, refusal)

    async def refuse_stream(_request: Any, context: Any) -> Any:
        await _abort(context, refusal)
        yield

    if handler.request_streaming and handler.response_streaming:
        return grpc.stream_stream_rpc_method_handler(refuse_stream)
    if handler.request_streaming:
        return grpc.stream_unary_rpc_method_handler(refuse)
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler(refuse_stream)
    return grpc.unary_unary_rpc_method_handler(refuse)
