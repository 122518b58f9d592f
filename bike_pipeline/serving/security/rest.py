"""The guard before the REST handlers: one aiohttp middleware, so that a request crosses one layer only."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestPayloadError

from bike_pipeline.serving.security.guard import Guard, report
from bike_pipeline.serving.security.identity import PREDICT, Refusal
from bike_pipeline.serving.security.request_size import check_json

if TYPE_CHECKING:
    from bike_pipeline.settings.serving_security import LimitSettings

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_aiohttp_log = logging.getLogger("aiohttp.server")
# Looked up in every request: as the type of the own names, it need not be lowered each time.
_API_KEY = type(hdrs.AUTHORIZATION)("X-API-Key")
METRICS_PATH = "/monitoring/prometheus/metrics"


def middleware_of(guard: Guard) -> Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]:
    """Return the middleware that lets requests pass, or answers them itself with TF Serving's error JSON."""
    open_path = METRICS_PATH if guard.authentication.settings.open_metrics else ""
    limits = guard.limits
    _aiohttp_log.addFilter(_without_traceback)

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            # A browser asks for CORS before it sends credentials.
            if request.path != open_path and request.method != "OPTIONS":
                headers = request.headers
                guard.admit(
                    PREDICT, headers.get(hdrs.AUTHORIZATION, ""), headers.get(_API_KEY, ""), request.remote or ""
                )
            if request.body_exists:
                # Short bodies have arrived with their headers; these need no timer.
                body = await request.read() if request.content.is_eof() else await _body(request, limits)
                check_json(body, limits)
            return await handler(request)
        except Refusal as refusal:
            return _refused(refusal)
        except web.HTTPRequestEntityTooLarge:
            return _refused(_too_large(request.client_max_size))
        except web.HTTPException as answer:
            # The router's: a path or a method that does not exist.
            return error_response(answer.status, answer.reason, _allow(answer))
        except (RequestPayloadError, HttpProcessingError):
            return _closing(error_response(400, "The request's body cannot be read."))
        except ConnectionError:
            # The client went away in the middle of its body: nobody reads this, and nothing of it is unforeseen.
            return _closing(error_response(499, "The client went away."))
        # CancelledError is none of these: then nobody waits for an answer.
        except Exception as error:  # noqa: BLE001 (no error's text or traceback reaches a client)
            return error_response(500, report(error, f"REST {request.method}"))

    return guarded


def _without_traceback(record: logging.LogRecord) -> bool:
    """Tell a request that is no HTTP, or was left, in a line: else any port scan fills the log with traces."""
    if record.exc_info and isinstance(record.exc_info[1], HttpProcessingError | ConnectionError):
        gone = isinstance(record.exc_info[1], ConnectionError)
        record.msg = "a client went away: %s" if gone else "no HTTP request: %s"
        record.args = (type(record.exc_info[1]).__name__,)
        record.exc_info = None
        record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
    return True


async def _body(request: web.Request, limits: LimitSettings) -> bytes:
    """Return the body, which the request keeps for its handler.

    Raises:
        Refusal: it is too long, or does not arrive in time.
    """
    if (request.content_length or 0) > request.client_max_size:
        raise _too_large(request.client_max_size)
    try:
        async with asyncio.timeout(limits.read_seconds):
            return await request.read()
    except TimeoutError:
        raise Refusal(408, "DEADLINE_EXCEEDED", "The request's body did not arrive in time.") from None


def _allow(answer: web.HTTPException) -> dict[str, str]:
    return {"Allow": answer.headers["Allow"]} if "Allow" in answer.headers else {}


def _too_large(limit: int) -> Refusal:
    return Refusal(413, "RESOURCE_EXHAUSTED", f"The request's body is larger than {limit} bytes; send several.")


def _refused(refusal: Refusal) -> web.Response:
    headers = {}
    if refusal.retry_after:
        headers["Retry-After"] = str(math.ceil(refusal.retry_after))
    if refusal.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="bike-pipeline"'
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
