"""What stands before the REST handler: the key, and a body that is read, bounded in size and time, and unpacked."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import math
import zlib
from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.web_protocol import RequestHandler, RequestPayloadError

from bike_pipeline.serving.server.access import Quiet, check_key, report
from bike_pipeline.serving.server.limits import SMALL, check_json
from bike_pipeline.serving.statuses import Code, StatusError, invalid
from bike_pipeline.settings.serving import ServerSettings

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
_aiohttp_log = logging.getLogger("aiohttp.server")
_QUIET = (Quiet(HttpProcessingError, "no HTTP request"), Quiet(ConnectionError, "a client went away"))
METRICS_PATH = "/monitoring/prometheus/metrics"
# Where this leaves to the handler the body that it has read; nothing if there is no body, or must be none.
BODY = web.RequestKey("body", bytes)
# Where the handler leaves what the request is called, which its answer, or what refuses it, says again.
REQUEST_ID = web.RequestKey("request_id", str)
_ENCODINGS = "gzip, deflate"
# What is unpacked at once: short enough to do it within the event loop, and else a step in a thread.
_SHORT = 64 * 1024
_STEP = 1024 * 1024
# Of a request line and of a header; seconds that a connection without requests stays open, and that a rest is read.
_HEADER_BYTES, _IDLE_SECONDS, _LINGERING_SECONDS = 8192, 75.0, 5.0
# Any page may ask.
_FOR_PAGES = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "X-Request-Id"}
_PREFLIGHT = {
    **_FOR_PAGES,
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Authorization, Content-Encoding, Content-Type, X-Request-Id",
}


class Draining:
    """Tells whether each connection ends with its next answer."""

    now = False


def runner_of(settings: ServerSettings, key: str, draining: Draining, handler: Handler) -> web.ServerRunner:
    """Return what lets a handler answer every request, of the running event loop.

    There is no application: its router and middlewares take a tenth of the time of a short request.
    """
    loop = asyncio.get_running_loop()
    server = _Server(
        _guarded(settings, key, draining, handler),
        request_factory=functools.partial(web.BaseRequest, loop=loop, client_max_size=settings.max_request_bytes),
        access_log=None,
        max_line_size=_HEADER_BYTES,
        max_field_size=_HEADER_BYTES,
        # Bodies are unpacked after it is known whose they are.
        auto_decompress=False,
        keepalive_timeout=_IDLE_SECONDS,
        # What is left of a body that was refused is not waited for any longer than that.
        lingering_time=_LINGERING_SECONDS,
    )
    return web.ServerRunner(server, shutdown_timeout=settings.drain_seconds)


def _guarded(settings: ServerSettings, key: str, draining: Draining, handler: Handler) -> Handler:
    """Return a handler that lets requests pass to another, or answers them itself with TF Serving's error JSON."""
    for quiet in _QUIET:
        _aiohttp_log.addFilter(quiet)

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        asked_from_page = hdrs.ORIGIN in request.headers
        try:
            if hdrs.EXPECT in request.headers and not _waits(request):
                raise StatusError(Code.INVALID_ARGUMENT, "Only `Expect: 100-continue` is understood.", status=417)
            if asked_from_page and request.method == hdrs.METH_OPTIONS:
                # A browser asks for CORS before it sends credentials.
                response: web.StreamResponse = web.Response(headers=_PREFLIGHT)
            else:
                response = await _admitted(settings, key, request, handler)
        except StatusError as refusal:
            response = _refused(refusal)
        except (RequestPayloadError, HttpProcessingError, ConnectionError) as error:
            # aiohttp keeps it with the connection: let go of its frames, and so of what they hold.
            error.__traceback__ = error.__context__ = error.__cause__ = None
            told = 400, "The request's body cannot be read."
            if isinstance(error, ConnectionError):
                # In the middle of the body: nobody reads this, and nothing of it is unforeseen.
                told = 499, "The client went away."
            response = _closing(_error_response(*told))
        # CancelledError is none of these: then nobody waits for an answer.
        except Exception as error:  # noqa: BLE001 (no error's text or traceback reaches a client)
            response = _error_response(500, report(error, f"REST {request.method}"))
        if REQUEST_ID in request:
            response.headers["X-Request-Id"] = request[REQUEST_ID]
        if asked_from_page:
            response.headers.update(_FOR_PAGES)
        # The rest of a body that nobody asked for is not waited for. While the server stops, a client that is told so
        # with its answer does not send the next request to a connection that is about to end.
        if draining.now or not request.content.is_eof():
            response.force_close()
        return response

    return answer


async def _admitted(
    settings: ServerSettings, key: str, request: web.BaseRequest, handler: Handler
) -> web.StreamResponse:
    """Answer a request whose client may ask it; only then its body is read, if it is one that has a body."""
    check_key(key, request.headers.get(hdrs.AUTHORIZATION, ""))
    if not (request.body_exists and request.method == hdrs.METH_POST and _takes_body(request.path)):
        return await handler(request)
    # A short body has arrived with its headers.
    body = _arrived(request) or await _read(request, settings.request_timeout_seconds)
    if len(body) <= SMALL:
        check_json(body, settings.limits)
    request[BODY] = body
    return await handler(request)


def _takes_body(path: str) -> bool:
    # TF Serving's methods stand behind a colon; no other request has a body.
    return path[:11].lower() == "/v1/models/" and ":" in path


def _arrived(request: web.BaseRequest) -> bytes:
    """Return a short body that is there already and not packed; else nothing."""
    content = request.content
    if not content.is_eof() or content.total_bytes > _SHORT or hdrs.CONTENT_ENCODING in request.headers:
        return b""
    return content.read_nowait() if content.total_bytes <= request.client_max_size else b""


async def _read(request: web.BaseRequest, seconds: float) -> bytes:
    """Return the body of a request, unpacked; its `client_max_size` bounds it before and after that."""
    encoding = request.headers.get(hdrs.CONTENT_ENCODING, "").strip().lower()
    if encoding not in {"", "identity", "gzip", "x-gzip", "deflate"}:
        raise StatusError(
            Code.INVALID_ARGUMENT, f"This Content-Encoding is not supported; send one of: {_ENCODINGS}.", status=415
        )
    most = request.client_max_size
    length = request.content_length
    if length is not None and length > most:
        raise _too_large(most)
    body = await _arriving(request, seconds)
    return await _unpacked(body, encoding, most) if encoding not in {"", "identity"} else body


async def _arriving(request: web.BaseRequest, seconds: float) -> bytes:
    content, most = request.content, request.client_max_size
    body = bytearray()
    try:
        if not content.is_eof() and _waits(request):
            # Not before the client is known.
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            # The answer is still to begin.
            request.writer.output_size = 0
        async with asyncio.timeout(seconds):
            while not content.at_eof():
                piece = await content.readany()
                if len(body) + len(piece) > most:
                    raise _too_large(most)
                body += piece
        return bytes(body)
    except TimeoutError:
        raise StatusError(Code.DEADLINE_EXCEEDED, "The request's body did not arrive in time.", status=408) from None
    finally:
        # Whoever keeps the error of a body that was left keeps this frame, but not the body.
        body.clear()


async def _unpacked(body: bytes, encoding: str, most: int) -> bytes:
    """Return what a body holds; many bytes of it are unpacked in a thread, which does so beside other requests."""
    # Some send deflate without zlib's header, whose first four bits are 8.
    bare = encoding == "deflate" and body[:1] and body[0] & 0xF != 8
    bits = 16 + zlib.MAX_WBITS if "gzip" in encoding else -zlib.MAX_WBITS if bare else zlib.MAX_WBITS
    loop = asyncio.get_running_loop()
    found: list[bytes] = []
    size, rest = 0, body
    unpacker = zlib.decompressobj(bits)
    try:
        while not unpacker.eof:
            if size or len(body) > _SHORT:
                piece = await loop.run_in_executor(None, unpacker.decompress, rest, _STEP)
            else:
                piece = unpacker.decompress(rest, _SHORT)
            if not piece and not rest:
                break
            size += len(piece)
            if size > most:
                raise _too_large(most)
            found.append(piece)
            rest = unpacker.unconsumed_tail
            if unpacker.eof and "gzip" in encoding and unpacker.unused_data:
                # Another member (RFC 1952, 2.2).
                rest, unpacker = unpacker.unused_data, zlib.decompressobj(bits)
    except zlib.error:
        unpacker = zlib.decompressobj(bits)
    if not unpacker.eof:
        raise invalid("The request's body cannot be read.")
    return b"".join(found)


def _too_large(limit: int) -> StatusError:
    return StatusError(
        Code.RESOURCE_EXHAUSTED, f"The request's body is larger than {limit} bytes; send several.", status=413
    )


def _refused(refusal: StatusError) -> web.Response:
    """Return an error as TF Serving says it, and what it lacks words for."""
    headers = {}
    if refusal.retry_after:
        headers["Retry-After"] = str(math.ceil(refusal.retry_after))
    if refusal.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="bike-pipeline"'
    if refusal.status == 415:
        headers["Accept-Encoding"] = _ENCODINGS
    response = _error_response(refusal.status, refusal.message, headers)
    # The rest of a body that nobody wants is not waited for.
    return _closing(response) if refusal.status in {408, 413, 417} else response


def _closing(response: web.Response) -> web.Response:
    response.force_close()
    return response


def _error_response(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    """Return TF Serving's error JSON."""
    return web.Response(
        status=status,
        body=json.dumps({"error": message}, ensure_ascii=False).encode("utf-8", "replace"),
        content_type="application/json",
        headers=headers,
    )


def _waits(request: web.BaseRequest) -> bool:
    return request.headers.get(hdrs.EXPECT, "").lower() == "100-continue"


class _Server(web.Server):
    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(RequestHandler):
    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        # It logs, and refuses to answer if an answer has begun.
        super().handle_error(request, status, exc, message)
        message = "The request is no HTTP that this server understands."
        if isinstance(exc, LineTooLong):
            message = "The request line or a header is too long."
        elif status != 400:
            message = "Internal error."
        return _closing(_error_response(status, message))
