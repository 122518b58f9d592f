"""The guard before the gRPC handlers: one interceptor."""

from __future__ import annotations

import asyncio
import functools
import logging
import math
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any
from urllib.parse import unquote

import grpc
from grpc import aio

from bike_pipeline.serving.security import ADMIN, PREDICT
from bike_pipeline.serving.security.guard import Guard, Quiet, check_model_config, report
from bike_pipeline.serving.security.limits import SMALL, Share
from bike_pipeline.serving.statuses import Code, StatusError, invalid
from bike_pipeline.settings.serving import LimitSettings

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
        self._wrapped: dict[str, Any] = {}

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """Return the handler of a call, or one that refuses it before its message is read."""
        method: str = handler_call_details.method
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        is_open = self._guard.authentication.open_health and method.startswith(_HEALTH)
        if self._guard.required and not is_open:
            metadata = dict(handler_call_details.invocation_metadata or ())
            scope = ADMIN if method == RELOAD else PREDICT
            try:
                # The address is known to handlers only.
                client = self._guard.admit(scope, metadata.get("authorization", ""), metadata.get("x-api-key", ""), "")
                # The handler is called in the same task.
                _CLIENT.set(client.id)
            except StatusError as refusal:
                return grpc.stream_unary_rpc_method_handler(functools.partial(self._refuse_caller, refusal))
        if method not in self._wrapped:
            self._wrapped[method] = self._wrap(handler, method, is_open)
        return self._wrapped[method]

    async def _refuse_caller(self, refusal: StatusError, _messages: Any, context: Any) -> None:
        """Refuse a call without reading its messages; one without valid credentials counts for its address."""
        try:
            if refusal.code is Code.UNAUTHENTICATED:
                self._guard.rate.take(f"peer:{peer_address(context.peer())}")
        except StatusError as too_often:
            refusal = too_often
        await _refuse(refusal, context)

    def _wrap(self, handler: Any, method: str, is_open: bool) -> Any:
        if handler.request_streaming or handler.response_streaming:
            return handler
        guard, behaviour = self._guard, handler.unary_unary
        by_address = not guard.required and not is_open

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
                    peer = peer_address(context.peer())
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
                await _refuse(refusal, context)
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


def peer_address(peer: str) -> str:
    """Return the address in a gRPC peer, as REST names it: a client has one rate over both.

    Args:
        peer: `ipv4:127.0.0.1:5000`, `ipv6:%5B::1%5D:5000` or `unix:`, which has no address.
    """
    return unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]")


async def _refuse(refusal: StatusError, context: Any) -> None:
    trailing: tuple[tuple[str, str], ...] = ()
    if wait := refusal.retry_after:
        # gRPC's own clients wait that long before a retry (gRFC A6); others read the name that HTTP uses.
        trailing = (("grpc-retry-pushback-ms", str(math.ceil(wait * 1000))), ("retry-after", str(math.ceil(wait))))
    await context.abort(CODES[refusal.code], refusal.message, trailing)


def grpc_options(limits: LimitSettings) -> list[tuple[str, int]]:
    """Return options for `grpc.aio.server`: the size of metadata, idle connections, abuse of pings."""
    return [
        ("grpc.max_metadata_size", limits.header_bytes),
        ("grpc.absolute_max_metadata_size", 2 * limits.header_bytes),
        ("grpc.max_connection_idle_ms", int(limits.idle_seconds * 1000)),
        ("grpc.server_handshake_timeout_ms", int(limits.read_seconds * 1000)),
        # A connection that was lost without a word is found out and freed.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.max_concurrent_streams", 1000),
    ]
