"""One version of a model through its life: START, LOADING, AVAILABLE, UNLOADING, END."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from enum import IntEnum
from pathlib import Path

from bike_pipeline.serving.server import loading
from bike_pipeline.serving.server.batching import Batcher, Resources
from bike_pipeline.serving.server.loading import LoadedVersion
from bike_pipeline.serving.server.signatures import Signature
from bike_pipeline.serving.statuses import Code, StatusError

_log = logging.getLogger(__name__)


class State(IntEnum):
    """States of a version; the numbers are those of `tensorflow.serving.ModelVersionStatus.State`."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


class ServedVersion:
    """One version. All methods belong to the event loop's thread.

    Attributes:
        state: where it is in its life.
        error: why it is not available; None if nothing went wrong.
        batchers: what answers, by signature; TensorFlow may still answer others (see `batcher`).
        tries: how often it was tried to load it.
        retry_at: when it may be tried again, on the event loop's clock.
        stamp: changes when its folder is replaced or its files are.
    """

    def __init__(self, model: str, number: int, folder: Path, resources: Resources, tries: int = 0) -> None:
        self.model, self.number, self.folder = model, number, folder
        self.state = State.START
        self.error: StatusError | None = None
        self.batchers: dict[str, Batcher] = {}
        self.tries = tries
        self.retry_at = 0.0
        self.stamp = stamp(folder)
        self._resources = resources
        self._loaded: LoadedVersion | None = None
        self._users = 0
        self._unused = asyncio.Event()
        self._unused.set()
        self._adding = asyncio.Lock()

    @property
    def loaded(self) -> LoadedVersion:
        """The version in memory; a StatusError if it is not there."""
        if self._loaded is None:
            raise StatusError(Code.NOT_FOUND, f"Servable not found for request: Specific({self.model}, {self.number})")
        return self._loaded

    @property
    def backends(self) -> dict[str, str]:
        return {name: batcher.backend.name for name, batcher in self.batchers.items()}

    async def load(self) -> None:
        """Load it beside the requests; afterwards it is AVAILABLE, or END with its error."""
        self.state = State.LOADING
        self.tries += 1
        settings, metrics = self._resources.settings, self._resources.metrics
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            self._loaded = await loop.run_in_executor(self._resources.loading, loading.load, self.folder, settings)
        except StatusError as error:
            self.error = error
        except Exception as error:  # noqa: BLE001 - whatever a runtime raises, the version is broken and the server is not
            _log.exception("%s version %s cannot be loaded", self.model, self.number)
            self.error = StatusError(Code.INTERNAL, f"{type(error).__name__}: {error}")
        else:
            self._add_batchers(self._loaded)
        self.state = State.END if self.error else State.AVAILABLE
        metrics.load_attempts.add((self.model, self.error.code.name if self.error else "OK"))
        metrics.load_latency.add((self.model,), (loop.time() - began) * 1e6)
        self.retry_at = loop.time() + settings.load_retry_seconds

    def unload(self) -> asyncio.Task[None]:
        """Let no new request in; return what waits for those under way and then frees the memory."""
        self.state = State.UNLOADING
        return asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(self._resources.settings.drain_seconds):
                await self._unused.wait()
        except TimeoutError:
            _log.warning("%s version %s is unloaded with %s requests under way", self.model, self.number, self._users)
        self.batchers.clear()
        self._loaded = None
        self.state = State.END

    def __enter__(self) -> ServedVersion:
        """Keep it in memory while a request uses it."""
        self._users += 1
        self._unused.clear()
        return self

    def __exit__(self, *_: object) -> None:
        self._users -= 1
        if not self._users:
            self._unused.set()

    async def batcher(self, signature: Signature) -> Batcher:
        """Return what answers a signature that nothing answers yet: TensorFlow, which is loaded for it."""
        async with self._adding:
            if signature.name not in self.batchers:
                loaded, resources = self.loaded, self._resources
                await asyncio.get_running_loop().run_in_executor(
                    resources.loading, loading.add_tensorflow, loaded, resources.settings
                )
                self._add_batchers(loaded)
        try:
            return self.batchers[signature.name]
        except KeyError:
            raise StatusError(Code.UNIMPLEMENTED, f"signature {signature.name} cannot be run") from None

    def _add_batchers(self, loaded: LoadedVersion) -> None:
        for name, backend in loaded.backends.items():
            if name not in self.batchers:
                self.batchers[name] = Batcher(backend, loaded.signatures[name], self.model, self._resources)


def stamp(folder: Path) -> tuple[int, ...]:
    """Return what changes when a folder is replaced or its files are."""
    with contextlib.suppress(OSError):
        return tuple(
            value
            for path in sorted([folder, *folder.rglob("*")])
            for found in [path.stat()]
            for value in (found.st_ino, found.st_mtime_ns, found.st_size)
        )
    return ()
