"""The REST API: TF Serving's URLs, bodies, errors and status codes."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import orjson
from aiohttp import hdrs, web

from bike_pipeline.serving.server import answering, examples_api, json_format, json_values, openapi
from bike_pipeline.serving.server.answering import Answering, Counted
from bike_pipeline.serving.server.http import BODY, METRICS_PATH, REQUEST_ID
from bike_pipeline.serving.server.limits import SMALL
from bike_pipeline.serving.server.metrics import CONTENT_TYPE
from bike_pipeline.serving.server.request_log import request_id_of
from bike_pipeline.serving.statuses import Code, StatusError, invalid

if TYPE_CHECKING:
    from bike_pipeline.serving.server.ui import Ui

# tensorflow_serving/model_servers/http_rest_api_util.cc: the path as it was sent, whose names are decoded afterwards.
_FLAGS = re.IGNORECASE | re.ASCII
_PREDICT = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?:(classify|regress|predict)", _FLAGS)
_MODEL = re.compile(r"/v1/models(?:/([^/:]+))?(?:/versions/(\d+)|/labels/([^/:]+))?(/metadata)?", _FLAGS)
# Looked up in every request: as the type of the own names, it need not be lowered each time.
_REQUEST_ID = type(hdrs.AUTHORIZATION)("X-Request-Id")
# The page for people, of a server that has one.
UI_PATH = "/ui"
_EXAMPLES = {"classify": examples_api.CLASSIFY, "regress": examples_api.REGRESS}


class RestApi:
    """Answers every path."""

    def __init__(self, answers: Answering, with_metrics: bool, document: Any, page: Ui | None = None) -> None:
        self._answers, self._page = answers, page
        self._with_metrics = with_metrics
        self._document = orjson.dumps(document)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; what is raised, what stands before this answers (see `http`)."""
        path = request.rel_url.raw_path
        if request.method == "POST" and (asked := _asked(path)):
            verb, name, number, label = asked
            content = request.get(BODY, b"")
            request[REQUEST_ID] = request_id = request_id_of(request.headers.get(_REQUEST_ID, ""))
            if verb == "predict":
                return _json(await self._predict(request_id, content, name, number, label))
            # In other letters it is malformed, as in TF Serving, where all else may be in any.
            if verb in _EXAMPLES:
                return _json(await self._examples(request_id, content, verb, name, number, label))
        if request.method == "GET":
            if path == METRICS_PATH and self._with_metrics:
                return web.Response(body=self._answers.metrics.text(), headers={"Content-Type": CONTENT_TYPE})
            if path == openapi.PATH:
                return _json(self._document)
            if found := _MODEL.fullmatch(path):
                return _json(self._model_info(*found.groups()))
            if path == UI_PATH or path.startswith(f"{UI_PATH}/"):
                if self._page is None:
                    raise StatusError(Code.NOT_FOUND, "There is no page: the server was started without --ui.")
                return await self._page.answer(request)
        raise invalid(f"Malformed request: {request.method} {path}")

    def _model_info(self, name: str | None, version: str | None, label: str | None, metadata: str | None) -> bytes:
        number = _number(version)
        if not name:
            raise invalid("Missing model name in request.")
        asked = _decoded(name), number, _decoded(label)
        if metadata:
            body = answering.metadata_json(self._answers.versions.find(*asked))
        else:
            body = answering.as_json(answering.status(self._answers.versions.statuses(*asked)))
        return orjson.dumps(body, option=orjson.OPT_INDENT_2)

    async def _predict(
        self, request_id: str, content: bytes, name: str, number: int | None, label: str | None
    ) -> bytes:
        with Counted(self._answers, request_id, name, "REST") as counted:
            try:
                version = self._answers.versions.find(name, number, label)
            except StatusError:
                # As TF Serving: what cannot be read is told before what is not there.
                await self._read(answering.rest_readable, content)
                raise
            with version:
                found = version.loaded.signatures
                chosen, columns, form = await self._read(answering.rest_predict, content, found)
                outputs = await self._answers.predict(counted, version, found[chosen], columns)
                return json_format.response(outputs, form)

    async def _examples(
        self, request_id: str, content: bytes, verb: str, name: str, number: int | None, label: str | None
    ) -> bytes:
        with Counted(self._answers, request_id, name, "REST", verb.capitalize()) as counted:
            chosen, columns = await self._read(answering.rest_examples, content)
            with self._answers.versions.find(name, number, label) as version:
                signature = examples_api.signature_of(version, chosen, _EXAMPLES[verb])
                results = await self._answers.examples(counted, version, signature, columns)
            return json_values.written({"results": results})

    async def _read(self, read: Callable[..., Any], content: bytes, *arguments: Any) -> Any:
        """Return what a function of `answering` makes of a body, a large one in the other process."""
        answers = self._answers
        if len(content) > SMALL:
            return await answers.parsing.run(read, content, answers.limits, *arguments)
        return read(content, answers.limits, *arguments)


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")


@functools.lru_cache(256)
def _asked(path: str) -> tuple[str, str, int | None, str | None] | None:
    """Return the verb of the path of a POST, and model, version and label; None if it is none of these."""
    found = _PREDICT.fullmatch(path)
    if found is None:
        return None
    name, number, label, verb = found.groups()
    return verb, _decoded(name), _number(number), _decoded(label)


def _decoded(text: Any) -> Any:
    return unquote(text) if text and "%" in text else text


def _number(text: str | None) -> int | None:
    if text and (len(text) >= 20 or int(text) >= 1 << 63):
        raise invalid(f"Failed to convert version: {text} to numeric.")
    return int(text) if text else None
