"""The guard before the REST handlers: one aiohttp middleware, so that a request crosses one layer only."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any, cast

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.web_protocol import RequestHandler, RequestPayloadError

from bike_pipeline.serving.security import bodies
from bike_pipeline.serving.security.guard import EVERYBODY, Guard, Quiet, report
from bike_pipeline.serving.security.identity import PREDICT
from bike_pipeline.serving.security.limits import Share
from bike_pipeline.serving.security.request_size import SMALL, check_json
from bike_pipeline.serving.statuses import StatusError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_aiohttp_log = logging.getLogger("aiohttp.server")
_QUIET = (Quiet(HttpProcessingError, "no HTTP request"), Quiet(ConnectionError, "a client went away"))
# Looked up in every request: as the type of the own names, it need not be lowered each time.
_API_KEY = type(hdrs.AUTHORIZATION)("X-API-Key")
METRICS_PATH = "/monitoring/prometheus/metrics"
# Any page may ask; the key is what lets it in.
_FOR_PAGES = {"Access-Control-Allow-Origin": "*"}
_PREFLIGHT = {
    **_FOR_PAGES,
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Authorization, Content-Encoding, Content-Type, X-API-Key",
}


def middleware_of(guard: Guard) -> Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]:
    """Return the middleware that lets requests pass, or answers them itself with TF Serving's error JSON."""
    open_path = METRICS_PATH if guard.authentication.settings.open_metrics else ""
    for quiet in _QUIET:
        _aiohttp_log.addFilter(quiet)

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        asked_from_page = hdrs.ORIGIN in request.headers
        try:
            if asked_from_page and request.method == hdrs.METH_OPTIONS:
                # A browser asks for CORS before it sends credentials.
                response: web.StreamResponse = web.Response(headers=_PREFLIGHT)
            else:
                response = await _admitted(guard, open_path, request, handler)
        except StatusError as refusal:
            response = refused(refusal)
        except web.HTTPException as answer:
            # The router's: a path or a method that does not exist.
            response = error_response(answer.status, answer.reason, _allow(answer))
        except (RequestPayloadError, HttpProcessingError) as error:
            _forget(error)
            response = _closing(error_response(400, "The request's body cannot be read."))
        except ConnectionError as error:
            # The client went away in the middle of its body: nobody reads this, and nothing of it is unforeseen.
            _forget(error)
            response = _closing(error_response(499, "The client went away."))
        # CancelledError is none of these: then nobody waits for an answer.
        except Exception as error:  # noqa: BLE001 (no error's text or traceback reaches a client)
            response = error_response(500, report(error, f"REST {request.method}"))
        if asked_from_page:
            response.headers.update(_FOR_PAGES)
        if not request.content.is_eof():
            # Nor is a body that nobody asked for.
            response.force_close()
        return response

    return guarded


async def _admitted(guard: Guard, open_path: str, request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer a request whose client may ask it; only then its body is read, if it is one that has a body."""
    if open_path and request.path == open_path:
        return await handler(request)
    client = EVERYBODY
    if not guard.is_open:
        headers = request.headers
        client = guard.admit(
            PREDICT, headers.get(hdrs.AUTHORIZATION, ""), headers.get(_API_KEY, ""), request.remote or ""
        )
    if not (request.body_exists and request.method == hdrs.METH_POST and _takes_body(request.path)):
        return await handler(request)
    with Share(guard.shares, client.id if client is not EVERYBODY else f"peer:{request.remote}") as share:
        # A short body has arrived with its headers; it holds no more than its connection does.
        body = bodies.arrived(request) or await bodies.read(request, share, guard.limits.read_seconds)
        if len(body) <= SMALL:
            check_json(body, guard.limits)
        request[bodies.BODY] = body
        return await handler(request)


def _takes_body(path: str) -> bool:
    # TF Serving's methods stand behind a colon; no other request has a body.
    return path[:11].lower() == "/v1/models/" and ":" in path


def _forget(error: BaseException) -> None:
    """Let go of the frames of an error that aiohttp keeps with the connection, and so of what they hold."""
    error.__traceback__ = error.__context__ = error.__cause__ = None


def _allow(answer: web.HTTPException) -> dict[str, str]:
    return {"Allow": answer.headers["Allow"]} if "Allow" in answer.headers else {}


def refused(refusal: StatusError) -> web.Response:
    """Return an error as TF Serving says it, and what it lacks words for."""
    headers = {}
    if refusal.retry_after:
        headers["Retry-After"] = str(math.ceil(refusal.retry_after))
    if refusal.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="bike-pipeline"'
    if refusal.status == 415:
        headers["Accept-Encoding"] = bodies.ENCODINGS
    response = error_response(refusal.status, refusal.message, headers)
    # The rest of a body that nobody wants is not waited for.
    return _closing(response) if refusal.status in {408, 413} else response


def _closing(response: web.Response) -> web.Response:
    response.force_close()
    return response


def error_response(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    """Return TF Serving's error JSON."""
    return web.Response(
        status=status,
        body=json.dumps({"error": message}, ensure_ascii=False).encode("utf-8", "replace"),
        content_type="application/json",
        headers=headers,
    )


async def expect_later(request: web.Request) -> web.StreamResponse | None:
    """Take `Expect: 100-continue` without an answer: a body is asked for when it is known whose it is."""
    if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
        return None
    return _closing(error_response(417, "Only `Expect: 100-continue` is understood."))


class Runner(web.AppRunner):
    """Runs an application whose parser, too, answers in TF Serving's error JSON."""

    def __init__(self, app: web.Application, handler: Handler | None = None, **options: Any) -> None:
        """Run an application with the options of `web.AppRunner`.

        A handler answers every request in place of the application's router and middlewares, which together take a
        tenth of the time of a short request.
        """
        super().__init__(app, **options)
        self._handler = handler

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        if self._handler is not None:
            # Its requests are those that the application makes.
            server.request_handler = cast("Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]", self._handler)
        # aiohttp has no setting for what answers if there is no request yet.
        server.__class__ = _Server
        return server


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
        return _closing(error_response(status, message))
