"""The guard before the gRPC handlers: one interceptor."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from typing import Any

import grpc
from grpc import aio

from bike_pipeline.serving.security.guard import Guard, Quiet, report
from bike_pipeline.serving.security.identity import ADMIN, PREDICT
from bike_pipeline.serving.security.limits import Share
from bike_pipeline.serving.security.paths import check_model_config
from bike_pipeline.serving.security.request_size import SMALL
from bike_pipeline.serving.statuses import StatusError, invalid

# Who calls, from the interceptor to the handler; empty if everybody may.
_CLIENT: ContextVar[str] = ContextVar("client", default="")
_grpc_log = logging.getLogger("grpc._cython.cygrpc")
# gRPC logs an answer that a cancelled call did not take as an unforeseen error.
_QUIET = Quiet(aio.InternalError, "a client went away")
CODES = {code.value[0]: code for code in grpc.StatusCode}
_HEALTH = "/grpc.health.v1.Health/"
RELOAD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"


class GuardInterceptor(aio.ServerInterceptor):  # type: ignore[misc]
    """Lets calls pass to their handlers, or ends them with a status of its own."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        _grpc_log.addFilter(_QUIET)
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
                client = self._guard.admit(ADMIN if method == RELOAD else PREDICT, authorization, api_key, "")
                # The handler is called in the same task.
                _CLIENT.set(client.id)
            except StatusError as refusal:
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

        async def guarded(_messages: Any, context: Any) -> Any:
            try:
                return await answered(context)
            except aio.InternalError:
                # What an answer or an error ends with that nobody takes any more: the call was cancelled.
                raise asyncio.CancelledError from None

        async def answered(context: Any) -> Any:
            try:
                client = _CLIENT.get()
                if by_address:
                    peer = _address(context.peer())
                    client = guard.admit(PREDICT, "", "", peer).id if not guard.is_open else f"peer:{peer}"
                request = await guard.arriving.read(context, client)
                with Share(guard.shares, client) as share:
                    # Those of gRPC's own services, such as health, are parsed already.
                    if isinstance(request, bytes) and len(request) > SMALL:
                        share.take("bytes", len(request))
                    if method == RELOAD:
                        check_model_config(_reload_request(request).config, guard.roots)
                    return await behaviour(request, context)
            except StatusError as refusal:
                await _abort(context, refusal)
            except (aio.AbortError, aio.InternalError):
                raise
            # CancelledError is none of these: then nobody waits for an answer.
            except Exception as error:  # noqa: BLE001 (no error's text or traceback reaches a client)
                await context.abort(grpc.StatusCode.INTERNAL, report(error, f"gRPC {method}"))

        # On the wire it is the same; here the message is read by the guard, and not before it is asked.
        return grpc.stream_unary_rpc_method_handler(guarded, handler.request_deserializer, handler.response_serializer)


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


async def _abort(context: Any, refusal: StatusError) -> None:
    trailing: tuple[tuple[str, str], ...] = ()
    if refusal.retry_after:
        milliseconds = math.ceil(refusal.retry_after * 1000)
        # gRPC's own clients wait that long before a retry (gRFC A6); others read the name that HTTP uses.
        trailing = (
            ("grpc-retry-pushback-ms", str(milliseconds)),
            ("retry-after", str(math.ceil(refusal.retry_after))),
        )
    await context.abort(CODES[refusal.code], refusal.message, trailing)


def _refusing(handler: Any, refusal: StatusError) -> Any:
    """Return a handler that refuses, whatever the call takes, as one of many messages: of these it reads none."""

    async def refuse(_request: Any, context: Any) -> None:
        await _abort(context, refusal)

    async def refuse_stream(_request: Any, context: Any) -> Any:
        await _abort(context, refusal)
        yield

    if handler.response_streaming:
        return grpc.stream_stream_rpc_method_handler(refuse_stream)
    return grpc.stream_unary_rpc_method_handler(refuse)
