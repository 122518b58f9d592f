"""What answers for one version: the fastest export that passed parity; else TensorFlow, as TF Serving runs it.

A SavedModel is a session that feeds and fetches the signature's tensors. So models of TensorFlow 1 and 2 are loaded
alike, and an input may have any shape that the graph itself takes: the shape that the signature tells is not held
against it.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bike_pipeline import features
from bike_pipeline.errors import BikePipelineError
from bike_pipeline.exporting.formats.base import Loaded
from bike_pipeline.exporting.formats.registry import format_of
from bike_pipeline.lean_imports import uncollected
from bike_pipeline.model_registry.layout import EXPORTS_FOLDER, PARITY_FILE
from bike_pipeline.model_registry.model_signature import sha256_of
from bike_pipeline.modeling import golden
from bike_pipeline.modeling.feedback import quantiles_around
from bike_pipeline.serving.server.tensors import DEFAULT_SIGNATURE, SERVE, Array, Signature, numpy_type
from bike_pipeline.serving.statuses import Code, StatusError, invalid
from bike_pipeline.storage.files import plain_folder

SAVED_MODEL = "saved_model"
# Rows of a batch under load, by which formats are compared: what is fastest for one row need not be for a batch.
_BATCH_ROWS = 32
_TYPES = {"int": np.int64, "float": np.float32}

_log = logging.getLogger(__name__)


class Backend(Protocol):
    """Answers one version's requests of one signature; used by one thread at a time.

    Attributes:
        name: the format that answers.
        sizes: numbers of rows that a call is padded to, ascending; empty if any number is as good.
        quick_rows: most rows that it answers too quickly to be worth a thread; 0 for none.
        any_shape: whether it takes inputs of other shapes than the signature says.
        exact: whether its answers are the SavedModel's own but for rounding.
    """

    name: str
    sizes: tuple[int, ...] = ()
    quick_rows: int = 0
    any_shape: bool = False
    exact: bool = True

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return every output of the signature for one array an input, of the signature's types."""


class ExportBackend(Backend):
    """An exported model: raw features in, the model's one answer out, no TensorFlow."""

    def __init__(
        self, name: str, folder: Path, record: Mapping[str, Any], max_rows: int, inputs: Iterable[str], answer: str
    ) -> None:
        """Load an export for calls of at most `max_rows` with `inputs`; a `BikePipelineError` says why it cannot.

        `answer` is the name of the signature's output.
        """
        form, path = format_of(name), folder / str(record.get("file", ""))
        if sha256_of(path) != record.get("sha256"):
            raise BikePipelineError("the file is not the one that was measured", where=str(path), fix="push again")
        self.name, self._answer = name, answer
        self.exact = record.get("precision") == "float32"
        # LiteRT allocates anew whenever the number of rows changes, which costs as much as answering: it gets a copy
        # for each of a few numbers of rows. The others take any number as it comes.
        powers = max_rows.bit_length() if name.startswith("tflite") else 0
        self.sizes = tuple(1 << power for power in range(powers))
        self._any = form.load(folder)
        self._of_size: dict[int, Loaded] = {size: form.load(folder) for size in self.sizes}
        # Exports of earlier releases answer with a number what is none; they go on serving, with that put right.
        broken = golden.broken_rows()
        asked = ~golden.are_sound({name: broken[name] for name in inputs})
        self._invents = bool(np.isfinite(self._any.predict(broken))[asked].any())
        if self._invents:
            _log.warning("%s answers a row that is not finite; put right here, a new push does without", folder)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the answers as the model's only output; NaN if an input is not finite."""
        rows = len(next(iter(inputs.values())))
        missing = [f for f in features.OPTIONAL_INPUTS if f.name not in inputs]
        inputs = {**inputs, **{f.name: np.full(rows, f.default, _TYPES[f.kind]) for f in missing}}
        answers = np.asarray(self._of_size.get(rows, self._any).predict(inputs))
        if self._invents:
            answers = np.where(golden.are_sound(inputs), answers, np.float32(np.nan))
        return {self._answer: answers}


class IntervalBackend(Backend):
    """The quantiles around what an export answers, made of the same table as in the graph."""

    def __init__(self, export: ExportBackend, names: Iterable[str], quantiles: Array) -> None:
        """Answer with the quantiles of a version's state of feedback, (groups, names)."""
        self.name, self.exact, self.sizes = export.name, export.exact, export.sizes
        self._export, self._names, self._quantiles = export, tuple(names), quantiles

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return rentals and each quantile of them; NaN where none is known."""
        answers = self._export.run(inputs)
        around = quantiles_around(answers[features.LABEL], inputs, self._quantiles)
        return answers | dict(zip(self._names, around.T, strict=True))


def exports_by_speed(folder: Path, wanted: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the records of the exports that may answer, the fastest first: all in float32 if none is wanted."""
    try:
        formats = json.loads((folder / EXPORTS_FOLDER / PARITY_FILE).read_bytes())["formats"]
        records = {str(name): dict(record) for name, record in formats.items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StatusError(Code.DATA_LOSS, f"{PARITY_FILE} cannot be read ({type(error).__name__})") from None
    may_answer = {
        name: record
        for name, record in records.items()
        if name != SAVED_MODEL
        and record.get("passed") is True
        and (name in wanted if wanted else record.get("precision") == "float32")
    }
    return dict(sorted(may_answer.items(), key=lambda one: (_batch_seconds(one[1]), one[0])))


def _batch_seconds(record: Mapping[str, Any]) -> float:
    """Return how long a format takes for a batch of this server, from what was measured of it when it was exported."""
    latency, rate = (float(record.get(name) or 0.0) for name in ("latency_us", "rows_per_second"))
    return latency / 1e6 + _BATCH_ROWS / rate if latency and rate else np.inf


def fastest_export(folder: Path, signature: Signature, wanted: Sequence[str], max_rows: int) -> ExportBackend | None:
    """Return the fastest export that passed parity and loads; None if there is none for this signature.

    An export whose file is not the one that was measured, or that does not load here, is passed over and logged.
    """
    # The exports carry these signatures of the bike model alone.
    inputs = {DEFAULT_SIGNATURE: features.REQUIRED_INPUTS, features.SERVING_ALL_INPUTS: features.MODEL_INPUTS}
    types = {f.name: np.dtype(_TYPES[f.kind]) for f in inputs.get(signature.name, ())}
    asked = {name: np.dtype(numpy_type(spec.dtype)) for name, spec in signature.inputs.items()}
    outputs = {*signature.outputs}
    known = outputs in [{answer.output} for answer in features.ANSWERS.values()]
    if not types or not known or (signature.batches, asked) != (True, types):
        return None
    (answer,) = outputs
    for name, record in exports_by_speed(folder, wanted).items():
        try:
            return ExportBackend(name, folder / EXPORTS_FOLDER / name, record, max_rows, types, answer)
        except (BikePipelineError, OSError) as error:
            _log.warning("%s: %s does not answer: %s", folder, name, error)
    return None


def load_saved_model(folder: Path) -> Any:
    """Return a session with a SavedModel; TensorFlow is imported only now."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with uncollected():
        import tensorflow as tf

    # As TF Serving: an operation that a device lacks runs where it can.
    config = tf.compat.v1.ConfigProto(allow_soft_placement=True)
    session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
    try:
        with session.graph.as_default(), plain_folder(folder) as path:
            tf.compat.v1.saved_model.load(session, [SERVE], path)
    except (OSError, ValueError, KeyError, RuntimeError, tf.errors.OpError) as error:
        session.close()
        raise StatusError(Code.DATA_LOSS, f"TensorFlow cannot load it: {_first_line(error)}") from None
    return session


class TensorFlowBackend(Backend):
    """One signature of a SavedModel, run by TensorFlow."""

    name = SAVED_MODEL
    any_shape = True

    def __init__(self, session: Any, signature: Signature, definition: Any) -> None:
        """Keep one signature of the session of `load_saved_model`; refuse what is no plain tensor of the graph."""
        import tensorflow as tf
        from tensorflow.core.protobuf import config_pb2

        self._tf = tf
        # The callable does not keep the session alive.
        self._session = session
        self._outputs = tuple(signature.outputs)
        options = config_pb2.CallableOptions()
        try:
            self._kinds = {name: np.dtype(numpy_type(spec.dtype)) for name, spec in signature.inputs.items()}
            options.feed.extend(definition.inputs[name].name for name in signature.inputs)
            options.fetch.extend(definition.outputs[name].name for name in signature.outputs)
            # `Session.run` would hold each input to the shape that Python knows of its tensor, which C++, and so TF
            # Serving, does not. This is what Keras calls for the same purpose.
            self._call = session._make_callable_from_options(options)  # noqa: SLF001
        except (KeyError, ValueError, TypeError, tf.errors.OpError) as error:
            raise StatusError(Code.UNIMPLEMENTED, _first_line(error)) from None

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        try:
            answers = self._call(*(np.asarray(inputs[name], kind) for name, kind in self._kinds.items()))
        except self._tf.errors.OpError as error:
            code = error.error_code if error.error_code in set(Code) else Code.INTERNAL
            raise StatusError(Code(code), _first_line(error)) from None
        except (ValueError, TypeError) as error:
            raise invalid(_first_line(error)) from None
        return dict(zip(self._outputs, map(np.asarray, answers), strict=True))


def _first_line(error: Exception) -> str:
    text = getattr(error, "message", None) or str(error)
    return next(iter(str(text).splitlines()), type(error).__name__)
