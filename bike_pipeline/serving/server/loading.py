"""Loads one version, in a thread beside the requests: whole, right and warm before a client sees it."""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bike_pipeline import features
from bike_pipeline.errors import BikePipelineError
from bike_pipeline.model_registry import verification
from bike_pipeline.model_registry.layout import EXPORTS_FOLDER
from bike_pipeline.modeling.golden import read_golden
from bike_pipeline.serving.protos import prediction_log_pb2
from bike_pipeline.serving.server import backends, signatures, tensors
from bike_pipeline.serving.server.backends import Backend
from bike_pipeline.serving.server.batching import quick_rows
from bike_pipeline.serving.server.signatures import Signature
from bike_pipeline.serving.statuses import Code, StatusError, invalid
from bike_pipeline.settings.serving_server import ServerSettings

# Golden rows were answered by TensorFlow; another float32 runtime differs by rounding, another model by far more.
_GOLDEN_TOLERANCE = 1e-3
WARM_UP_FILE = Path("assets.extra", "tf_serving_warmup_requests")
# TF Serving's own limit (servables/tensorflow/saved_model_warmup_util.h).
_MAX_RECORDS = 1000
_log = logging.getLogger(__name__)


@dataclass
class LoadedVersion:
    """A version in memory.

    Attributes:
        signatures: by name.
        definitions: the same as SignatureDefs.
        unproven: what nothing proves of the files, in words.
        backends: what answers, by signature; those that are missing need TensorFlow, which is loaded on demand.
    """

    folder: Path
    signatures: Mapping[str, Signature]
    definitions: Mapping[str, Any]
    unproven: tuple[str, ...] = ()
    backends: dict[str, Backend] = field(default_factory=dict)


def load(folder: Path, settings: ServerSettings) -> LoadedVersion:
    """Load a version and warm it up.

    Raises:
        StatusError: it is broken: files that are not those that were pushed, nothing that can be loaded, other answers
            than those on record, a warm-up request that fails.
    """
    unproven = _sound(folder)
    for reason in unproven:
        _log.warning("%s is not verified: %s", folder, reason)
    version = LoadedVersion(folder, *signatures.read(folder), unproven)
    default = version.signatures.get(signatures.DEFAULT)
    if default and tuple(settings.backends) != (backends.SAVED_MODEL,):
        export = backends.fastest_export(folder, default, settings.backends, settings.batching.max_rows)
        if export:
            version.backends[default.name] = _warm(export, default, settings)
    if not version.backends:
        add_tensorflow(version, settings)
    _ask_golden_rows(version)
    _replay_warm_up(version)
    return version


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
    backend = version.backends.get(signatures.DEFAULT)
    if backend is None or not path.exists():
        return
    specs = version.signatures[signatures.DEFAULT].inputs
    try:
        columns, answers = read_golden(path)
        inputs = {name: np.array(columns[name], tensors.numpy_type(spec.dtype)) for name, spec in specs.items()}
        expected = np.array(answers, np.float64)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StatusError(Code.DATA_LOSS, f"{path.name} cannot be read ({type(error).__name__})") from None
    got = backend.run(inputs)[features.LABEL].astype(np.float64)
    same = got.shape == expected.shape and (np.isnan(got) == np.isnan(expected)).all()
    if same and backend.exact:
        apart = np.abs(got - expected) / np.maximum(np.abs(expected), 1.0)
        same = (apart[~np.isnan(expected)] <= _GOLDEN_TOLERANCE).all()
    if not same:
        raise StatusError(Code.DATA_LOSS, f"{backend.name} answers the golden rows otherwise than when it was pushed")


def _replay_warm_up(version: LoadedVersion) -> None:
    left_out = 0
    for request in warm_up_requests(version.folder):
        name = request.model_spec.signature_name or signatures.DEFAULT
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


def warm_up_requests(folder: Path) -> Iterator[Any]:
    """Yield the PredictRequests among a version's warm-up requests; none if there is no such file."""
    path = folder / WARM_UP_FILE
    if not path.exists():
        return
    for number, content in enumerate(_records(path)):
        if number == _MAX_RECORDS:
            raise invalid(f"Number of warmup records exceeds the maximum ({_MAX_RECORDS}) at {path.name}")
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
