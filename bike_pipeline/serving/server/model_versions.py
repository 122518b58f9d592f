"""The models of a server: what is meant to be served is watched, loaded, handed to requests, drained and unloaded.

A successor is available before what it replaces is let go (TF Serving's availability-preserving policy), so there is
no moment without a version. A version that does not load replaces nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path

from bike_pipeline.errors import StorageError
from bike_pipeline.model_registry.deployment import STABLE
from bike_pipeline.serving.server import version_policy
from bike_pipeline.serving.server.batching import Resources
from bike_pipeline.serving.server.served_version import ServedVersion, State, stamp
from bike_pipeline.serving.server.version_policy import ModelConfig
from bike_pipeline.serving.statuses import Code, StatusError, invalid

_log = logging.getLogger(__name__)
# Versions at their end are kept for status requests, up to a number that no person reads through.
_MAX_ENDED = 100


class Model:
    """One model: its configuration and its versions.

    Attributes:
        preferred: what a request that names no version gets, if it is available; None for the newest one.
        latest: what it gets: that one, or the newest that is available.
        failed: the wanted versions that do not load.
        absent: what is wanted and not there, in words.
    """

    def __init__(self, config: ModelConfig, resources: Resources) -> None:
        self.config = config
        self.labels: dict[str, int] = {}
        self.versions: dict[int, ServedVersion] = {}
        self.preferred: int | None = None
        self.latest: ServedVersion | None = None
        self.failed: list[ServedVersion] = []
        self.absent = ""
        self._resources = resources
        self._unloading: set[asyncio.Task[None]] = set()

    def available(self) -> list[ServedVersion]:
        """Return the versions that answer, ascending."""
        found = [version for version in self.versions.values() if version.state is State.AVAILABLE]
        return sorted(found, key=lambda version: version.number)

    async def reconcile(self, wanted: Mapping[int, Path]) -> None:
        """Load the wanted folders that are not there, the newest first, and let go of what is not wanted any more."""
        for number in sorted(wanted, reverse=True):
            if self._is_due(number, wanted[number]):
                await self._load(number, wanted[number])
        self.failed = [version for number in wanted if (version := self.versions[number]).error]
        self._let_go(wanted)
        ended = [n for n, version in sorted(self.versions.items()) if version.state is State.END and n not in wanted]
        for number in ended[: max(0, len(ended) - _MAX_ENDED)]:
            del self.versions[number]

    async def stop(self) -> None:
        versions = self.available()
        self.latest = None
        await asyncio.gather(*self._unloading, *(version.unload() for version in versions))

    def _is_due(self, number: int, folder: Path) -> bool:
        version = self.versions.get(number)
        if version is None or version.state is not State.END:
            return version is None
        if version.error is None:
            return True
        if stamp(folder) != version.stamp:
            # Somebody mended it.
            version.tries = 0
            return True
        now = asyncio.get_running_loop().time()
        return version.tries <= self._resources.settings.load_retries and now >= version.retry_at

    async def _load(self, number: int, folder: Path) -> None:
        known = self.versions.get(number)
        version = ServedVersion(self.config.name, number, folder, self._resources, known.tries if known else 0)
        self.versions[number] = version
        await version.load()
        if version.error:
            _log.error("%s version %s cannot be served: %s", self.config.name, number, version.error)
        else:
            _log.info("%s version %s is available (%s)", self.config.name, number, version.backends)
        self._choose()

    def _choose(self) -> None:
        available = self.available()
        promoted = next((version for version in available if version.number == self.preferred), None)
        self.latest = promoted or next(reversed(available), None)

    def _let_go(self, wanted: Mapping[int, Path]) -> None:
        available = self.available()
        unwanted = [version for version in available if version.number not in wanted]
        if len(unwanted) == len(available) and (wanted or self._resources.settings.keep_last_version):
            return
        for version in unwanted:
            task = version.unload()
            self._unloading.add(task)
            task.add_done_callback(self._unloading.discard)
            _log.info("%s version %s is unloaded", self.config.name, version.number)
        self._choose()


class ModelVersions:
    """Every model of a server. All methods belong to the event loop's thread."""

    def __init__(self, resources: Resources, on_change: Callable[[bool], Awaitable[None]]) -> None:
        """Begin without models; `on_change` is called after versions came or went, with whether all are `ready`."""
        self.models: dict[str, Model] = {}
        self._resources = resources
        self._on_change = on_change
        self._looking = asyncio.Lock()

    @property
    def ready(self) -> bool:
        return bool(self.models) and all(model.latest for model in self.models.values())

    async def configure(self, configs: Iterable[ModelConfig], there: bool = False) -> None:
        """Serve these models and no others; return when what they want was loaded, or tried.

        Args:
            configs: the models.
            there: whether it is an error that a model has no version yet, or lacks one that its policy names.

        Raises:
            StatusError: a name stands there twice, a label is for a version that is not available, or a version is not
                there or does not load; the models go on as far as they came.
        """
        wanted: dict[str, ModelConfig] = {}
        for config in configs:
            if config.name in wanted:
                raise invalid(f"Duplicate model name: {config.name}")
            wanted[config.name] = config
        async with self._looking:
            dropped = [self.models.pop(name) for name in [*self.models] if name not in wanted]
            for name, config in wanted.items():
                model = self.models.setdefault(name, Model(config, self._resources))
                model.config = config
                await self._look_at(model)
            absent = [text for name in wanted if there and (text := self.models[name].absent)]
            for name, config in wanted.items():
                if config.policy != "promoted":
                    self.label(self.models[name], config.labels)
            await self._on_change(self.ready)
        for model in dropped:
            await model.stop()
        if absent:
            raise StatusError(Code.NOT_FOUND, "; ".join(absent))
        broken = [v for name in wanted for v in self.models[name].failed]
        if broken:
            first = broken[0]
            raise StatusError(
                first.error.code if first.error else Code.INTERNAL,
                f"{first.model} version {first.number} cannot be served: {first.error}",
            )

    def label(self, model: Model, labels: Mapping[str, int]) -> None:
        """Give a model these labels and no others; a label for a version that is not available is refused."""
        for label, number in labels.items():
            version = model.versions.get(number)
            new = label not in model.labels
            if (version is None or version.state is not State.AVAILABLE) and not (
                self._resources.settings.allow_labels_on_unavailable and new
            ):
                raise StatusError(
                    Code.FAILED_PRECONDITION,
                    f"Request to assign label to version {number} of model {model.config.name}, which is not "
                    "currently available for inference",
                )
        model.labels = dict(labels)

    async def watch(self) -> None:
        """Look at every model's folder again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._resources.settings.poll_seconds)
            async with self._looking:
                for model in list(self.models.values()):
                    try:
                        await self._look_at(model)
                    except OSError as error:
                        _log.warning("%s: cannot look for versions: %s", model.config.base_path, error)
                    except Exception:  # noqa: BLE001 - whatever it is, the next look may be better, and requests go on
                        _log.exception("%s: cannot look for versions", model.config.base_path)
                await self._on_change(self.ready)

    async def stop(self) -> None:
        await asyncio.gather(*(model.stop() for model in self.models.values()))

    async def _look_at(self, model: Model) -> None:
        loop = asyncio.get_running_loop()
        try:
            config = await loop.run_in_executor(self._resources.loading, version_policy.resolved, model.config)
        except StorageError as error:
            _log.warning("%s: what serves goes on serving: %s", model.config.name, error)
            return
        present = await loop.run_in_executor(self._resources.loading, version_policy.folders, config.base_path)
        model.preferred = config.labels.get(STABLE) if model.config.policy == "promoted" else None
        model.absent = version_policy.absent(config, present)
        await model.reconcile(version_policy.wanted(config, present))
        if model.config.policy == "promoted":
            ready = {version.number for version in model.available()}
            self.label(model, {label: number for label, number in config.labels.items() if number in ready})

    def _named(self, name: str, number: int | None, label: str | None) -> tuple[Model | None, int | None]:
        model = self.models.get(name)
        if label is not None:
            number = model.labels.get(label) if model else None
            if number is None:
                raise invalid(f"Unrecognized servable version label: {label}")
        return model, number

    def find(self, name: str, number: int | None = None, label: str | None = None) -> ServedVersion:
        """Return the version that a request asks for, the newest if it names none, if it is available."""
        model, number = self._named(name, number, label)
        if number is None:
            found = model.latest if model else None
            if found is None:
                raise StatusError(Code.NOT_FOUND, f"Servable not found for request: Latest({name})")
            return found
        found = model.versions.get(number) if model else None
        if found is None or found.state is not State.AVAILABLE:
            raise StatusError(Code.NOT_FOUND, f"Servable not found for request: Specific({name}, {number})")
        return found

    def statuses(self, name: str, number: int | None = None, label: str | None = None) -> list[ServedVersion]:
        """Return the versions that a status request asks for, the newest first."""
        model, number = self._named(name, number, label)
        if number is not None:
            if model is None or number not in model.versions:
                raise StatusError(Code.NOT_FOUND, f"Could not find version {number} of model {name}")
            return [model.versions[number]]
        if model is None or not model.versions:
            raise StatusError(Code.NOT_FOUND, f"Could not find any versions of model {name}")
        return [model.versions[found] for found in sorted(model.versions, reverse=True)]
