"""Loads one version, in a thread beside the requests: whole, right and warm before a client sees it."""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bike_pipeline import features
from bike_pipeline.errors import BikePipelineError
from bike_pipeline.model_registry import verification
from bike_pipeline.modeling.golden import read_golden
from bike_pipeline.serving.protos import prediction_log_pb2
from bike_pipeline.serving.server import backends, signatures, tensors
from bike_pipeline.serving.server.backends import Backend
from bike_pipeline.serving.server.batching import quick_rows
from bike_pipeline.serving.server.signatures import Signature
from bike_pipeline.serving.statuses import Code, StatusError
from bike_pipeline.settings.serving_server import ServerSettings

GOLDEN_FILE = backends.EXPORTS_FOLDER / "golden.json"
# Golden rows were answered by TensorFlow; another float32 runtime differs by rounding, another model by far more.
_GOLDEN_TOLERANCE = 1e-3
WARM_UP_FILE = Path("assets.extra", "tf_serving_warmup_requests")
# TF Serving's own limit (servables/tensorflow/saved_model_warmup_util.h).
_MAX_RECORDS = 1000


_log = logging.getLogger(__name__)


class Ready(NamedTuple):
    """A signature's backend, and the most rows that it answers too quickly to be worth a thread; 0 for none."""

    backend: Backend
    quick_rows: int


@dataclass
class LoadedVersion:
    """A version in memory.

    Attributes:
        signatures: by name.
        definitions: the same as SignatureDefs.
        unproven: what nothing proves of the files, in words.
        ready: what answers, by signature; the signatures that are missing need TensorFlow, which is loaded on demand.
    """

    folder: Path
    signatures: Mapping[str, Signature]
    definitions: Mapping[str, Any]
    unproven: tuple[str, ...] = ()
    ready: dict[str, Ready] = field(default_factory=dict)


def load(folder: Path, settings: ServerSettings) -> LoadedVersion:
    """Load a version and warm it up.

    Raises:
        StatusError: it is broken: files that are not those that were pushed, nothing that can be loaded, other answers
            than those on record, a warm-up request that fails.
    """
    unproven = _sound(folder)
    for reason in unproven:
        _log.warning("%s is not verified: %s", folder, reason)
    found, definitions = signatures.read(folder)
    version = LoadedVersion(folder, found, definitions, unproven)
    default = found.get(signatures.DEFAULT)
    if default and tuple(settings.backends) != (backends.SAVED_MODEL,):
        export = backends.fastest_export(folder, default, settings.backends, settings.batching.max_rows)
        if export:
            version.ready[default.name] = _ready(export, default, settings)
    if not version.ready:
        add_tensorflow(version, settings)
    _golden(version)
    _warm_up(version)
    return version


def add_tensorflow(version: LoadedVersion, settings: ServerSettings) -> None:
    """Load the SavedModel and let it answer every signature that nothing else answers."""
    if version.ready:
        _sound(version.folder)
    session = backends.load_saved_model(version.folder)
    for name, signature in version.signatures.items():
        if name in version.ready:
            continue
        try:
            backend = backends.TensorFlowBackend(session, signature, version.definitions[name])
        except StatusError as error:
            _log.warning("%s: the signature %s cannot be run: %s", version.folder, name, error)
            continue
        version.ready[name] = _ready(backend, signature, settings)


def _sound(folder: Path) -> tuple[str, ...]:
    """Return what nothing proves of a version, or refuse files that are not those that were pushed."""
    try:
        found = verification.verify(folder)
    except (BikePipelineError, OSError) as error:
        raise StatusError(Code.DATA_LOSS, f"cannot read the version ({error})") from None
    if found.problem:
        raise StatusError(Code.DATA_LOSS, f"it is not what was pushed: {found.problem}")
    return found.unproven


def _ready(backend: Backend, signature: Signature, settings: ServerSettings) -> Ready:
    """Call a backend until it has made all that it makes on first use."""
    numbers = all(spec.dtype != tensors.STRING for spec in signature.inputs.values())
    if not signature.batches or not numbers:
        # What valid strings or shapes would be, only the warm-up requests say.
        return Ready(backend, 0)
    rows = settings.batching.max_rows
    inputs = {
        name: np.zeros((rows, *(spec.shape or ())[1:]), tensors.numpy_type(spec.dtype))
        for name, spec in signature.inputs.items()
    }
    try:
        return Ready(backend, quick_rows(backend, inputs))
    except StatusError:
        # It takes other values, or other shapes than the signature says.
        if backend.any_shape:
            return Ready(backend, 0)
        raise


def _golden(version: LoadedVersion) -> None:
    """Ask the golden rows, if the version brings some, or refuse other answers than theirs."""
    path = version.folder / GOLDEN_FILE
    ready = version.ready.get(signatures.DEFAULT)
    if ready is None or not path.exists():
        return
    signature = version.signatures[signatures.DEFAULT]
    try:
        columns, answers = read_golden(path)
        inputs = {
            name: np.array(columns[name], tensors.numpy_type(spec.dtype)) for name, spec in signature.inputs.items()
        }
        expected = np.array(answers, np.float64)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StatusError(Code.DATA_LOSS, f"{path.name} cannot be read ({type(error).__name__})") from None
    got = ready.backend.run(inputs)[features.LABEL].astype(np.float64)
    tolerance = np.inf if _is_quantized(version.folder, ready.backend.name) else _GOLDEN_TOLERANCE
    same = got.shape == expected.shape and (np.isnan(got) == np.isnan(expected)).all()
    if same:
        apart = np.abs(got - expected) / np.maximum(np.abs(expected), 1.0)
        same = (apart[~np.isnan(expected)] <= tolerance).all()
    if not same:
        raise StatusError(
            Code.DATA_LOSS, f"{ready.backend.name} answers the golden rows otherwise than when it was pushed"
        )


def _is_quantized(folder: Path, name: str) -> bool:
    record = backends.parity_of(folder).get(name, {})
    return name != backends.SAVED_MODEL and record.get("precision") != "float32"


def _warm_up(version: LoadedVersion) -> None:
    left_out = 0
    for request in warm_up_requests(version.folder):
        name = request.model_spec.signature_name or signatures.DEFAULT
        if name not in version.ready:
            left_out += 1
            continue
        spec = version.signatures[name].inputs
        if set(request.inputs) != set(spec):
            raise StatusError(Code.INVALID_ARGUMENT, "a warm-up request has other inputs than the signature")
        version.ready[name].backend.run(
            {alias: tensors.checked(proto, spec[alias], alias) for alias, proto in request.inputs.items()}
        )
    if left_out:
        _log.info("%s: %s warm-up requests need TensorFlow, which is not loaded yet", version.folder, left_out)


def warm_up_requests(folder: Path) -> Iterator[Any]:
    """Yield the PredictRequests among a version's warm-up requests; none if there is no such file."""
    path = folder / WARM_UP_FILE
    if not path.exists():
        return
    for number, content in enumerate(_records(path)):
        if number == _MAX_RECORDS:
            raise StatusError(
                Code.INVALID_ARGUMENT, f"Number of warmup records exceeds the maximum ({_MAX_RECORDS}) at {path.name}"
            )
        log = prediction_log_pb2.PredictionLog()
        try:
            log.ParseFromString(content)
        except Exception as error:  # noqa: BLE001 - protobuf's DecodeError, whose place differs between its releases
            raise StatusError(
                Code.DATA_LOSS, f"Failed to parse warmup record {number} from {path.name} ({type(error).__name__})"
            ) from None
        if log.HasField("predict_log"):
            yield log.predict_log.request


def _records(path: Path) -> Iterator[bytes]:
    """Yield a TFRecord file's records: length, its checksum, the content, its checksum (tensorflow/core/lib/io).

    The checksums are not looked at: a pushed version's files are held to its fingerprint as a whole.
    """
    content = path.read_bytes()
    start = 0
    while start < len(content):
        head = content[start : start + 12]
        length = struct.unpack("<Q", head[:8])[0] if len(head) == 12 else len(content)
        if start + 12 + length + 4 > len(content):
            raise StatusError(Code.DATA_LOSS, f"{path.name} is cut short")
        yield content[start + 12 : start + 12 + length]
        start += 12 + length + 4
