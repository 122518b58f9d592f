"""One version of a model through its life: START, LOADING, AVAILABLE, UNLOADING, END.

It is loaded in a thread beside the requests: whole, right and warm before a client sees it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bike_pipeline import features
from bike_pipeline.errors import BikePipelineError
from bike_pipeline.model_registry import verification
from bike_pipeline.model_registry.layout import EXPORTS_FOLDER
from bike_pipeline.modeling.feedback_record import FEEDBACK_FILE, Feedback
from bike_pipeline.modeling.golden import read_golden
from bike_pipeline.serving.protos import get_model_status_pb2, prediction_log_pb2
from bike_pipeline.serving.server import backends, tensors
from bike_pipeline.serving.server.backends import Backend
from bike_pipeline.serving.server.batching import Batcher, Resources, quick_rows
from bike_pipeline.serving.server.tensors import DEFAULT_SIGNATURE, Signature
from bike_pipeline.serving.statuses import Code, StatusError, invalid
from bike_pipeline.settings.serving import ServerSettings

# Golden rows were answered by TensorFlow; another float32 runtime differs by rounding, another model by far more.
_GOLDEN_TOLERANCE = 1e-3
WARM_UP_FILE = Path("assets.extra", "tf_serving_warmup_requests")
# TF Serving's own limit (servables/tensorflow/saved_model_warmup_util.h).
_MAX_RECORDS = 1000
# START, LOADING, AVAILABLE, UNLOADING and END, as numbers.
State = get_model_status_pb2.ModelVersionStatus.State
_log = logging.getLogger(__name__)


@dataclass
class LoadedVersion:
    """A version in memory.

    Attributes:
        unproven: what nothing proves of the files, in words.
        backends: what answers, by signature; those that are missing need TensorFlow, which is loaded on demand.
        quantiles: of errors, (groups, quantiles), for the request log; None for a model without intervals.
    """

    folder: Path
    signatures: Mapping[str, Signature]
    definitions: Mapping[str, Any]
    unproven: tuple[str, ...] = ()
    backends: dict[str, Backend] = field(default_factory=dict)
    quantiles: tensors.Array | None = None


class ServedVersion:
    """One version. All methods belong to the event loop's thread.

    Attributes:
        batchers: what answers, by signature; TensorFlow may still answer others (see `batcher`).
        about: what the request log says of whatever answers a signature, the fields of `request_log.About`.
        retry_at: when it may be tried again, on the event loop's clock.
        stamp: changes when its folder is replaced or its files are.
    """

    def __init__(self, model: str, number: int, folder: Path, resources: Resources, tries: int = 0) -> None:
        self.model, self.number, self.folder = model, number, folder
        self.state: int = State.START
        self.error: StatusError | None = None
        self.batchers: dict[str, Batcher] = {}
        self.about: dict[str, tuple[Any, ...]] = {}
        self.tries = tries
        self.retry_at = 0.0
        self.stamp = stamp(folder)
        self._resources = resources
        self._watched = resources.metrics.model.of_version(model, number)
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
            self._loaded = await loop.run_in_executor(self._resources.loading, load, self.folder, settings)
        except StatusError as error:
            self.error = error
        except Exception as error:  # noqa: BLE001 - whatever a runtime raises, the version is broken and the server is not
            _log.exception("%s version %s cannot be loaded", self.model, self.number)
            self.error = StatusError(Code.INTERNAL, f"{type(error).__name__}: {error}")
        else:
            self._add_batchers(self._loaded)
        self.state = State.END if self.error else State.AVAILABLE
        if not self.error:
            self._watched.begin()
        metrics.load_attempts.add((self.model, self.error.code.name if self.error else "OK"))
        metrics.load_latency.add((self.model,), (loop.time() - began) * 1e6)
        self.retry_at = loop.time() + settings.load_retry_seconds

    def unload(self) -> asyncio.Task[None]:
        """Let no new request in; return what waits for those under way and then frees the memory."""
        self.state = State.UNLOADING
        self._watched.end()
        return asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(self._resources.settings.drain_seconds):
                await self._unused.wait()
        except TimeoutError:
            _log.warning("%s version %s is unloaded with %s requests under way", self.model, self.number, self._users)
        self._watched.count()
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
                    resources.loading, add_tensorflow, loaded, resources.settings
                )
                self._add_batchers(loaded)
        try:
            return self.batchers[signature.name]
        except KeyError:
            raise StatusError(Code.UNIMPLEMENTED, f"signature {signature.name} cannot be run") from None

    def _add_batchers(self, loaded: LoadedVersion) -> None:
        for name, backend in loaded.backends.items():
            if name not in self.batchers:
                signature = loaded.signatures[name]
                self.batchers[name] = Batcher(backend, signature, self.model, self._resources, self._watched)
                self.about[name] = (self.number, name, backend.name, signature.types, loaded.quantiles)


def stamp(folder: Path) -> list[tuple[int, int, int]]:
    """Return what changes when a folder is replaced or its files are."""
    with contextlib.suppress(OSError):
        found = map(Path.stat, sorted([folder, *folder.rglob("*")]))
        return [(each.st_ino, each.st_mtime_ns, each.st_size) for each in found]
    return []


def load(folder: Path, settings: ServerSettings) -> LoadedVersion:
    """Load a version and warm it up, or raise a StatusError: it is not what was pushed, or answers otherwise."""
    unproven = _sound(folder)
    for reason in unproven:
        _log.warning("%s is not verified: %s", folder, reason)
    version = LoadedVersion(folder, *tensors.read_signatures(folder), unproven)
    for name in (DEFAULT_SIGNATURE, features.SERVING_ALL_INPUTS):
        signature = version.signatures.get(name)
        if signature and tuple(settings.backends) != (backends.SAVED_MODEL,):
            export = backends.fastest_export(folder, signature, settings.backends, settings.batching.max_rows)
            if export:
                version.backends[name] = _warm(export, signature, settings)
    intervals = version.signatures.get(features.SERVING_INTERVALS)
    rentals = version.backends.get(features.SERVING_ALL_INPUTS)
    if intervals:
        feedback = _feedback_of(folder)
        version.quantiles = feedback.state.table()[:, 1:]
        if isinstance(rentals, backends.ExportBackend):
            around = backends.IntervalBackend(rentals, feedback.settings.quantiles, version.quantiles)
            version.backends[features.SERVING_INTERVALS] = _warm(around, intervals, settings)
    if not version.backends:
        add_tensorflow(version, settings)
    _ask_golden_rows(version)
    _replay_warm_up(version)
    return version


def _feedback_of(folder: Path) -> Feedback:
    path = folder / WARM_UP_FILE.parent / FEEDBACK_FILE
    try:
        return Feedback.from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StatusError(Code.DATA_LOSS, f"{path.name} cannot be read ({type(error).__name__})") from None


def add_tensorflow(version: LoadedVersion, settings: ServerSettings) -> None:
    """Load the SavedModel and let it answer every signature that nothing else answers."""
    if version.backends:
        _sound(version.folder)
    session = backends.load_saved_model(version.folder)
    for name, signature in version.signatures.items():
        if name in version.backends:
            continue
        try:
            backend = backends.TensorFlowBackend(session, signature, version.definitions[name])
        except StatusError as error:
            _log.warning("%s: the signature %s cannot be run: %s", version.folder, name, error)
            continue
        version.backends[name] = _warm(backend, signature, settings)


def _sound(folder: Path) -> tuple[str, ...]:
    """Return what nothing proves of a version, or refuse files that are not those that were pushed."""
    try:
        found = verification.verify(folder)
    except (BikePipelineError, OSError) as error:
        raise StatusError(Code.DATA_LOSS, f"cannot read the version ({error})") from None
    if found.problem:
        raise StatusError(Code.DATA_LOSS, f"it is not what was pushed: {found.problem}")
    return found.unproven


def _warm(backend: Backend, signature: Signature, settings: ServerSettings) -> Backend:
    """Call a backend until it has made all that it makes on first use, and find out how quick it is."""
    specs, rows = signature.inputs, settings.batching.max_rows
    # What valid strings or shapes would be, only the warm-up requests say.
    if signature.batches and all(spec.dtype != tensors.STRING for spec in specs.values()):
        zeros = {n: np.zeros((rows, *(s.shape or ())[1:]), tensors.numpy_type(s.dtype)) for n, s in specs.items()}
        try:
            backend.quick_rows = quick_rows(backend, zeros)
        except StatusError:
            # It takes other values, or other shapes than the signature says.
            if not backend.any_shape:
                raise
    return backend


def _ask_golden_rows(version: LoadedVersion) -> None:
    """Ask the golden rows, if the version brings some, or refuse other answers than theirs."""
    path = version.folder / EXPORTS_FOLDER / "golden.json"
    # Versions of earlier releases have one signature of plain tensors.
    name = features.SERVING_ALL_INPUTS if features.SERVING_ALL_INPUTS in version.signatures else DEFAULT_SIGNATURE
    backend = version.backends.get(name)
    if backend is None or not path.exists():
        return
    specs = version.signatures[name].inputs
    try:
        columns, answers = read_golden(path)
        inputs = {name: np.array(columns[name], tensors.numpy_type(spec.dtype)) for name, spec in specs.items()}
        expected = np.array(answers, np.float64)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StatusError(Code.DATA_LOSS, f"{path.name} cannot be read ({type(error).__name__})") from None
    (answered,) = backend.run(inputs).values()
    got = answered.astype(np.float64)
    same = got.shape == expected.shape and (np.isnan(got) == np.isnan(expected)).all()
    if same and backend.exact:
        apart = np.abs(got - expected) / np.maximum(np.abs(expected), 1.0)
        same = (apart[~np.isnan(expected)] <= _GOLDEN_TOLERANCE).all()
    if not same:
        raise StatusError(Code.DATA_LOSS, f"{backend.name} answers the golden rows otherwise than when it was pushed")


def _replay_warm_up(version: LoadedVersion) -> None:
    left_out = 0
    for request in warm_up_requests(version.folder / WARM_UP_FILE):
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        if name not in version.backends:
            left_out += 1
            continue
        specs = version.signatures[name].inputs
        if set(request.inputs) != set(specs):
            raise invalid("a warm-up request has other inputs than the signature")
        sent = request.inputs.items()
        inputs = {n: tensors.of_type(one.dtype, tensors.to_array(one, n), specs[n], n) for n, one in sent}
        version.backends[name].run(inputs)
    if left_out:
        _log.info("%s: %s warm-up requests need TensorFlow, which is not loaded yet", version.folder, left_out)


def warm_up_requests(path: Path) -> Iterator[Any]:
    """Yield the PredictRequests of a TFRecord file, if it is there.

    A record is a length, its checksum, the content, its checksum (tensorflow/core/lib/io). The checksums are not looked
    at: a pushed version's files are held to its fingerprint as a whole.
    """
    content = path.read_bytes() if path.exists() else b""
    start = number = 0
    while start < len(content):
        end = start + 12 + int.from_bytes(content[start : start + 8], "little")
        if end + 4 > len(content):
            raise StatusError(Code.DATA_LOSS, f"{path.name} is cut short")
        if number == _MAX_RECORDS:
            raise invalid(f"Number of warmup records exceeds the maximum ({_MAX_RECORDS}) at {path.name}")
        try:
            log = prediction_log_pb2.PredictionLog.FromString(content[start + 12 : end])
        except Exception as error:  # noqa: BLE001 - protobuf's DecodeError, whose place differs between its releases
            raise StatusError(
                Code.DATA_LOSS, f"Failed to parse warmup record {number} from {path.name} ({type(error).__name__})"
            ) from None
        if log.HasField("predict_log"):
            yield log.predict_log.request
        start, number = end + 4, number + 1
