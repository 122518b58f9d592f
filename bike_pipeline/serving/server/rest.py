"""The REST API: TF Serving's URLs, bodies, errors and status codes."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from typing import Any

import orjson
from aiohttp import web

from bike_pipeline.serving.security.request_size import check_rows
from bike_pipeline.serving.server import answering, json_format, messages, openapi
from bike_pipeline.serving.server.answering import Answering
from bike_pipeline.serving.server.metrics import CONTENT_TYPE
from bike_pipeline.serving.server.model_versions import ModelVersions
from bike_pipeline.serving.server.served_version import ServedVersion
from bike_pipeline.serving.server.statuses import Code, StatusError, http_status, invalid

# tensorflow_serving/model_servers/http_rest_api_handler.cc
_PREDICT = re.compile(
    r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?:(classify|regress|predict)", re.IGNORECASE
)
_MODEL = re.compile(r"/v1/models(?:/([^/:]+))?(?:/versions/(\d+)|/labels/([^/:]+))?(/metadata)?", re.IGNORECASE)
METRICS_PATH = "/monitoring/prometheus/metrics"
_JSON = "application/json"


def error_response(error: StatusError) -> web.Response:
    """Return an error as TF Serving says it."""
    return web.Response(status=http_status(error.code), body=orjson.dumps({"error": error.message}), content_type=_JSON)


class RestApi:
    """Answers every path.

    Attributes:
        draining: whether each connection ends with its next answer.
    """

    def __init__(
        self, versions: ModelVersions, answers: Answering, with_metrics: bool, max_rows: int, document: Any
    ) -> None:
        """Answer for these models.

        Args:
            versions: the models.
            answers: asks them.
            with_metrics: whether the metrics are told.
            max_rows: most rows in one request.
            document: what `openapi` says of all this.
        """
        self.draining = False
        self._versions = versions
        self._answers = answers
        self._with_metrics = with_metrics
        self._max_rows = max_rows
        self._document = orjson.dumps(document)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request; what else is raised, the guard before this answers (see `serving.security`)."""
        try:
            response = await self._answer(request)
        except StatusError as error:
            response = error_response(error)
        if self.draining:
            # Told with its answer, a client does not send the next request to a connection that is about to end.
            response.force_close()
        return response

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if request.method == "POST" and (found := _PREDICT.fullmatch(path)):
            name, number, label, verb = found.groups()
            if verb.lower() == "predict":
                return await self._predict(request, name, number, label)
            with self._versions.find(name, _number(number), label) as version:
                parsed = json_format.parse(await request.read())
                kind = {"classify": "classification", "regress": "regression"}[verb.lower()]
                raise answering.refuse_examples_api(version, parsed.signature, kind)
        if request.method == "GET":
            if path == METRICS_PATH and self._with_metrics:
                return web.Response(body=self._answers.metrics.text(), headers={"Content-Type": CONTENT_TYPE})
            if path == openapi.PATH:
                return web.Response(body=self._document, content_type=_JSON)
            if found := _MODEL.fullmatch(path):
                return self._told(*found.groups())
        if request.method == "OPTIONS" and request.headers.get("Origin"):
            return web.Response(headers=_CORS)
        raise invalid(f"Malformed request: {request.method} {path}")

    def _told(self, name: str | None, number: str | None, label: str | None, metadata: str | None) -> web.Response:
        if not name:
            raise invalid("Missing model name in request.")
        if metadata:
            body = messages.metadata_json(self._versions.find(name, _number(number), label))
        else:
            body = messages.as_json(messages.status(self._versions.statuses(name, _number(number), label)))
        return web.Response(body=orjson.dumps(body, option=orjson.OPT_INDENT_2), content_type=_JSON)

    async def _predict(self, request: web.Request, name: str, number: str | None, label: str | None) -> web.Response:
        began = time.perf_counter()
        code = Code.INTERNAL
        known = name if name in self._versions.models else "unknown"
        try:
            content = await request.read()
            with self._versions.find(name, _number(number), label) as version:
                body = await self._predicted(content, version)
            code = Code.OK
            return web.Response(body=body, content_type=_JSON)
        except StatusError as error:
            code = error.code
            raise
        except asyncio.CancelledError:
            # Whoever asked is gone.
            code = Code.CANCELLED
            raise
        finally:
            self._answers.count(known, "REST", began, code)

    async def _predicted(self, content: bytes, version: ServedVersion) -> bytes:
        parsed = json_format.parse(content)
        signature = answering.signature_of(version, parsed.signature, rest=True)
        columns, rows, form = json_format.inputs_of(parsed, signature)
        check_rows(rows, self._max_rows)
        return json_format.response(await self._answers.predict(version, signature, columns, rows), form)


_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Content-Type",
}


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    number = int(text) if len(text) < 20 else 1 << 63
    if number >= 1 << 63:
        raise invalid(f"Failed to convert version: {text} to numeric.")
    return number


def application(api: RestApi, middlewares: Sequence[Any], max_request_bytes: int) -> web.Application:
    """Return the application that answers.

    Args:
        api: what answers every path.
        middlewares: what a request passes first, the outermost first.
        max_request_bytes: the largest body.
    """
    app = web.Application(middlewares=list(middlewares), client_max_size=max_request_bytes)
    app.router.add_route("*", "/{path:.*}", api.handle)
    return app
