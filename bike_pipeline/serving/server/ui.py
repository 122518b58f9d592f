"""The page for people at `/ui/`: its files, and what it shows besides answers. The REST API gives it those."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from bike_pipeline import features
from bike_pipeline.errors import StorageError
from bike_pipeline.model_registry import ModelRegistry
from bike_pipeline.model_registry.deployment import Change, Deployment
from bike_pipeline.pages import forecast
from bike_pipeline.serving.server import explaining
from bike_pipeline.serving.server.model_versions import Model, ModelVersions
from bike_pipeline.serving.server.rest import UI_PATH
from bike_pipeline.serving.statuses import Code, StatusError, invalid

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings

_HEADERS = {
    "Content-Security-Policy": forecast.POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # A server of another release may answer the next time.
    "Cache-Control": "no-cache",
}
_log = logging.getLogger(__name__)


class Ui:
    """Answers the paths below `/ui/` of a server."""

    def __init__(self, settings: Settings, versions: ModelVersions) -> None:
        self._model, self._versions = settings.serving.model_name, versions
        self._files = forecast.files(self._model)

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Answer a GET; a StatusError of NOT_FOUND says that there is no such file."""
        path = request.rel_url.raw_path
        if path == UI_PATH:
            # The names of its files are relative.
            return web.Response(status=308, headers={"Location": f"{UI_PATH}/"})
        name = path.removeprefix(f"{UI_PATH}/")
        if name in self._files:
            content_type, content = self._files[name]
            return web.Response(body=content, content_type=content_type, charset="utf-8", headers=_HEADERS)
        if name == "state.json":
            return _json(await self._state())
        if name == "explanation.json":
            return _json(await self._explanation(request.rel_url.query))
        raise StatusError(Code.NOT_FOUND, f"There is nothing at {path}.")

    async def _explanation(self, query: Mapping[str, str]) -> dict[str, Any]:
        number = query.get("version")
        row = {feature.name: _value(feature, query.get(feature.name)) for feature in features.MODEL_INPUTS}
        with self._versions.find(self._model, int(number) if number and number.isdecimal() else None) as version:
            return await explaining.explanation(version, row)

    async def _state(self) -> dict[str, Any]:
        model = self._versions.models.get(self._model)
        if model is None:
            raise StatusError(Code.NOT_FOUND, f"Could not find any versions of model {self._model}")
        deployment, changes = await asyncio.to_thread(_promotions, model)
        return state_of(model, deployment, changes)


def _value(feature: features.Feature, text: str | None) -> float:
    low, high = feature.minimum or 0.0, features.MOST_YEARS if feature.maximum is None else feature.maximum
    try:
        value = feature.default if text is None else float(text) if feature.kind == "float" else int(text)
        if value is not None and (value == feature.default or low <= value <= high):
            return value
    except ValueError:
        pass
    raise invalid(f"{feature.name}: {text or 'nothing'} is not {features.described(feature)}")


def _promotions(model: Model) -> tuple[Deployment | None, list[Change]]:
    """Return what is promoted, and every change of it; nothing if it cannot be read, which stops no answer."""
    registry: ModelRegistry = ModelRegistry(model.config.base_path)
    try:
        return registry.deployment(), registry.history()
    except StorageError as error:
        _log.warning("the page shows no promotions: %s", error)
        return None, []


def state_of(model: Model, deployment: Deployment | None, changes: list[Change]) -> dict[str, Any]:
    """Return which versions answer, and each label: its version, since when it has it, its share of the requests."""
    deployment = deployment or Deployment()
    since: dict[str, tuple[int | None, str]] = {}
    for change in changes:
        if change.action == "abort":
            since.pop(change.label, None)
        elif change.label and since.get(change.label, (None, ""))[0] != change.to_version:
            since[change.label] = change.to_version, change.at
    last = deployment.change
    return {
        "model": model.config.name,
        # JavaScript's numbers are not exact beyond 2 ** 53.
        "serving": str(model.latest.number) if model.latest else None,
        "versions": [
            {"version": str(one.number), "answering": one.backends, "not_verified": one.loaded.unproven}
            for one in model.available()
        ],
        "failed": [{"version": str(one.number), "error": str(one.error and one.error.message)} for one in model.failed],
        "labels": {
            label: {
                "version": str(number),
                "since": since.get(label, (None, ""))[1],
                "percent": deployment.shares.get(label),
            }
            for label, number in {**deployment.labels, **model.labels}.items()
        },
        # Whose change it was is nobody's who only asks.
        "change": last and {name: value for name, value in asdict(last).items() if name != "who"},
    }


def _json(found: Mapping[str, Any]) -> web.Response:
    return web.Response(body=orjson.dumps(found), content_type="application/json", headers=_HEADERS)
