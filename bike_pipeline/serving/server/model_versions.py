"""The models of a server: what is meant to be served is watched, loaded, handed to requests, drained and unloaded.

A successor is available before what it replaces is let go (TF Serving's availability-preserving policy), so there is
no moment without a version. A version that does not load replaces nothing.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from google.protobuf import text_format

from bike_pipeline.errors import StorageError
from bike_pipeline.model_registry import ModelRegistry
from bike_pipeline.model_registry.deployment import STABLE
from bike_pipeline.serving.protos import model_server_config_pb2
from bike_pipeline.serving.server.batching import Resources
from bike_pipeline.serving.server.served_version import ServedVersion, State, stamp
from bike_pipeline.serving.statuses import Code, StatusError, invalid

_log = logging.getLogger(__name__)
# Versions at their end are kept for status requests, up to a number that no person reads through.
_MAX_ENDED = 100


@dataclass(frozen=True)
class ModelConfig:
    """What is configured for one model: its versions as TF Serving's ServableVersionPolicy chooses them.

    Attributes:
        policy: which versions are served; `promoted` is resolved into `specific` at every look (see `resolved`).
        latest: how many of the newest, with the policy `latest`.
        specific: which ones, with the policy `specific`.
        labels: versions by label.
        only_label: with the policy `promoted`, the one label whose version is served; empty for every label.
    """

    name: str
    base_path: Path
    policy: Literal["promoted", "latest", "all", "specific"] = "latest"
    latest: int = 1
    specific: Sequence[int] = ()
    labels: Mapping[str, int] = field(default_factory=dict)
    only_label: str = ""

    def resolved(self) -> ModelConfig:
        """Return what this means now; reads the deployment's state if the policy is `promoted`.

        Nothing serves then but what has a label, and a request that names no version gets the one that is `stable`, or
        that has the only label.
        """
        if self.policy != "promoted":
            return self
        registry = ModelRegistry(self.base_path)
        found = registry.deployment()
        if found is None:
            promoted = registry.serving() if self.only_label in ("", STABLE) else None
            return replace(self, policy="specific", specific=() if promoted is None else (promoted,))
        labels = {label: number for label, number in found.labels.items() if self.only_label in ("", label)}
        return replace(self, policy="specific", specific=tuple(labels.values()), labels=labels)

    def wanted(self, present: Mapping[int, Path]) -> dict[int, Path]:
        """Return the versions that are meant to be served, of those that are there."""
        numbers = sorted(present)
        if self.policy == "latest":
            numbers = numbers[-self.latest :]
        elif self.policy == "specific":
            numbers = [number for number in numbers if number in set(self.specific)]
        return {number: present[number] for number in numbers}

    def absent(self, present: Mapping[int, Path]) -> str:
        """Say which versions are meant to be served and not there; empty if none is missing."""
        if not present:
            return f"model {self.name} has no version in {self.base_path}"
        missing = sorted(set(self.specific) - present.keys()) if self.policy == "specific" else []
        return f"model {self.name} has no version {', '.join(map(str, missing))}" if missing else ""


def version_folders(base_path: Path) -> dict[int, Path]:
    """Return a model's version folders by number; a name may have leading zeros, and the first of two names counts."""
    try:
        entries = sorted(base_path.iterdir(), reverse=True)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    numbered = {int(path.name): path for path in entries if re.fullmatch("[0-9]+", path.name) and path.is_dir()}
    return {number: path for number, path in numbered.items() if number < 1 << 63}


def from_proto(proto: Any) -> ModelConfig:
    """Return a `tensorflow.serving.ModelConfig` as ours; which folders it may name, `access` has decided before."""
    if not proto.name:
        raise invalid("Invalid ModelConfig: a model has no name")
    if proto.model_platform not in ("", "tensorflow"):
        raise invalid(f"model {proto.name}: this server has no platform {proto.model_platform}, only tensorflow")
    if not proto.base_path.startswith("/"):
        raise invalid(f"model {proto.name}: the base path must be an absolute local folder")
    policy = proto.model_version_policy
    kind: Any = policy.WhichOneof("policy_choice") or "latest"
    versions = tuple(policy.specific.versions)
    if kind == "specific" and not versions:
        raise invalid(f"model {proto.name}: the specific version policy names no version")
    # Zero stands for the default, which is one.
    count = policy.latest.num_versions or 1
    return ModelConfig(proto.name, Path(proto.base_path), kind, count, versions, dict(proto.version_labels))


def models_in(path: Path) -> list[ModelConfig]:
    """Return the models that a file names, TF Serving's models.config; a StatusError says what is wrong with it."""
    try:
        text = path.read_text(encoding="utf-8")
        found = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    except (OSError, ValueError, text_format.ParseError) as error:
        raise invalid(f"{path} cannot be read ({error})") from None
    if not found.model_config_list.config:
        raise invalid(f"{path} names no model")
    return [from_proto(config) for config in found.model_config_list.config]


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
        return [version for _, version in sorted(self.versions.items()) if version.state == State.AVAILABLE]

    async def reconcile(self, wanted: Mapping[int, Path]) -> None:
        """Load the wanted folders that are not there, the newest first, and let go of what is not wanted any more."""
        for number in sorted(wanted, reverse=True):
            if self._is_due(number, wanted[number]):
                await self._load(number, wanted[number])
        self.failed = [version for number in wanted if (version := self.versions[number]).error]
        self._let_go(wanted)
        ended = [n for n, version in sorted(self.versions.items()) if version.state == State.END and n not in wanted]
        for number in ended[: max(0, len(ended) - _MAX_ENDED)]:
            del self.versions[number]

    async def stop(self) -> None:
        versions = self.available()
        self.latest = None
        await asyncio.gather(*self._unloading, *(version.unload() for version in versions))

    def _is_due(self, number: int, folder: Path) -> bool:
        version = self.versions.get(number)
        if version is None or version.state != State.END:
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
        # A file of models that is followed, and what it was at the last look.
        self._list: Path | None = None
        self._list_stamp: list[tuple[int, int, int]] = []
        self._resources = resources
        self._on_change = on_change
        self._looking = asyncio.Lock()

    @property
    def ready(self) -> bool:
        return bool(self.models) and all(model.latest for model in self.models.values())

    async def configure(self, configs: Iterable[ModelConfig], there: bool = False) -> None:
        """Serve these models and no others; return when what they want was loaded, or tried.

        Raises:
            StatusError: a name stands there twice, a label is for a version that is not available, or a version does
                not load, or, if `there`, is not there; the models go on as far as they came.
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
                try:
                    await self._look_at(model)
                except OSError as error:
                    # One folder that cannot be looked at must not keep the other models from being served.
                    model.absent = f"model {name}: {error}"
                    _log.error("%s", model.absent)
            absent = [text for name in wanted if there and (text := self.models[name].absent)]
            refused = []
            for name, config in wanted.items():
                try:
                    if config.policy != "promoted":
                        self._label(self.models[name], config.labels)
                except StatusError as refusal:
                    refused.append(refusal)
            await self._on_change(self.ready)
        for model in dropped:
            await model.stop()
        if refused:
            raise refused[0]
        if absent:
            raise StatusError(Code.NOT_FOUND, "; ".join(absent))
        if broken := [(v, v.error) for name in wanted for v in self.models[name].failed if v.error]:
            version, reason = broken[0]
            raise StatusError(reason.code, f"{version.model} version {version.number} cannot be served: {reason}")

    async def follow(self, path: Path) -> None:
        """Serve the models of a file, and those that it names whenever it changes; errors as of `configure`."""
        self._list, self._list_stamp = path, stamp(path)
        await self.configure(models_in(path))

    def _label(self, model: Model, labels: Mapping[str, int]) -> None:
        """Give a model these labels and no others; a label for a version that is not available is refused."""
        available = [version.number for version in model.available()]
        for label, number in labels.items():
            may_come = self._resources.settings.allow_labels_on_unavailable and label not in model.labels
            if number not in available and not may_come:
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
            if self._list and stamp(self._list) != self._list_stamp:
                try:
                    await self.follow(self._list)
                except StatusError as error:
                    _log.error("what can be served goes on serving: %s", error.message)
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
            config = await loop.run_in_executor(self._resources.loading, model.config.resolved)
        except StorageError as error:
            _log.warning("%s: what serves goes on serving: %s", model.config.name, error)
            return
        present = await loop.run_in_executor(self._resources.loading, version_folders, config.base_path)
        model.preferred = config.labels.get(config.only_label or STABLE) if model.config.policy == "promoted" else None
        model.absent = config.absent(present)
        await model.reconcile(config.wanted(present))
        if model.config.policy == "promoted":
            ready = {version.number for version in model.available()}
            self._label(model, {label: number for label, number in config.labels.items() if number in ready})

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
            if model is None or model.latest is None:
                raise StatusError(Code.NOT_FOUND, f"Servable not found for request: Latest({name})")
            return model.latest
        found = model.versions.get(number) if model else None
        if found is None or found.state != State.AVAILABLE:
            raise StatusError(Code.NOT_FOUND, f"Servable not found for request: Specific({name}, {number})")
        return found

    def statuses(self, name: str, number: int | None = None, label: str | None = None) -> list[ServedVersion]:
        """Return the versions that a status request asks for, the newest first."""
        model, number = self._named(name, number, label)
        versions = model.versions if model else {}
        wanted = [number] if number is not None else sorted(versions, reverse=True)
        if not versions.keys() & wanted:
            what = "any versions" if number is None else f"version {number}"
            raise StatusError(Code.NOT_FOUND, f"Could not find {what} of model {name}")
        return [versions[found] for found in wanted]
