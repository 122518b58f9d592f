"""One version of a model through its life: START, LOADING, AVAILABLE, UNLOADING, END."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Executor
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from bike_pipeline.serving.server import loading
from bike_pipeline.serving.server.batching import Batcher
from bike_pipeline.serving.server.loading import LoadedVersion
from bike_pipeline.serving.server.metrics import Metrics
from bike_pipeline.serving.server.signatures import Signature
from bike_pipeline.serving.statuses import Code, StatusError
from bike_pipeline.settings.serving_server import ServerSettings

_log = logging.getLogger(__name__)


class State(IntEnum):
    """States of a version; the numbers are those of `tensorflow.serving.ModelVersionStatus.State`."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


class Threads(NamedTuple):
    """Where work happens that the event loop must not wait for: reading and loading, and long calls of models."""

    loading: Executor
    answering: Executor


class ServedVersion:
    """One version. All methods belong to the event loop's thread.

    Attributes:
        state: where it is in its life.
        error: why it is not available; None if nothing went wrong.
        tries: how often it was tried to load it.
    """

    def __init__(
        self, model: str, number: int, folder: Path, settings: ServerSettings, threads: Threads, metrics: Metrics
    ) -> None:
        self._metrics = metrics
        self.model = model
        self.number = number
        self.folder = folder
        self.state = State.START
        self.error: StatusError | None = None
        self.tries = 0
        self._settings = settings
        self._threads = threads
        self._loaded: LoadedVersion | None = None
        self._batchers: dict[str, Batcher] = {}
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
        return {name: batcher.backend.name for name, batcher in self._batchers.items()}

    @property
    def unproven(self) -> tuple[str, ...]:
        """What nothing proves of its files, in words; none if it is not in memory."""
        return self._loaded.unproven if self._loaded else ()

    async def load(self) -> None:
        """Load it beside the requests; afterwards it is AVAILABLE, or END with its error."""
        self.state = State.LOADING
        self.tries += 1
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            self._loaded = await loop.run_in_executor(self._threads.loading, loading.load, self.folder, self._settings)
        except StatusError as error:
            self.error = error
        except Exception as error:  # noqa: BLE001 - whatever a runtime raises, the version is broken and the server is not
            _log.exception("%s version %s cannot be loaded", self.model, self.number)
            self.error = StatusError(Code.INTERNAL, f"{type(error).__name__}: {error}")
        else:
            self.error = None
            self._add_batchers(self._loaded)
            self.state = State.AVAILABLE
        if self.error:
            self.state = State.END
        self._metrics.load_attempts.add((self.model, self.error.code.name if self.error else "OK"))
        self._metrics.load_latency.add((self.model,), (loop.time() - began) * 1e6)

    def close(self) -> None:
        """Let no new request in, from now on; to be followed by `unload`."""
        self.state = State.UNLOADING

    async def unload(self) -> None:
        """Wait for the requests under way, and free the memory."""
        self.close()
        try:
            async with asyncio.timeout(self._settings.drain_seconds):
                await self._unused.wait()
        except TimeoutError:
            _log.warning("%s version %s is unloaded with %s requests under way", self.model, self.number, self._users)
        self._batchers.clear()
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

    def ready_batcher(self, signature: str) -> Batcher | None:
        """Return what answers a signature, if that is in memory."""
        return self._batchers.get(signature)

    async def batcher(self, signature: Signature) -> Batcher:
        """Return what answers a signature; TensorFlow is loaded if nothing else does."""
        if signature.name not in self._batchers:
            async with self._adding:
                if signature.name not in self._batchers:
                    loaded = self.loaded
                    await asyncio.get_running_loop().run_in_executor(
                        self._threads.loading, loading.add_tensorflow, loaded, self._settings
                    )
                    self._add_batchers(loaded)
        try:
            return self._batchers[signature.name]
        except KeyError:
            raise StatusError(Code.UNIMPLEMENTED, f"signature {signature.name} cannot be run") from None

    def _add_batchers(self, loaded: LoadedVersion) -> None:
        for name, ready in loaded.ready.items():
            if name not in self._batchers:
                self._batchers[name] = Batcher(
                    ready.backend,
                    loaded.signatures[name],
                    self._threads.answering,
                    ready.quick_rows,
                    self._settings.batching,
                    self._settings.request_timeout_seconds,
                    self._metrics.of_model(self.model),
                )
