"""A SavedModel run by TensorFlow, as TF Serving runs it: a session that feeds and fetches the signature's tensors.

So models of TensorFlow 1 and 2 are loaded alike, and an input may have any shape that the graph itself takes: the shape
that the signature tells is not held against it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bike_pipeline.lean_imports import uncollected
from bike_pipeline.serving.server.signatures import SERVE, Signature
from bike_pipeline.serving.server.statuses import Code, StatusError, invalid
from bike_pipeline.serving.server.tensors import Array, numpy_type
from bike_pipeline.storage.literal_paths import plain_folder

SAVED_MODEL = "saved_model"


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


class TensorFlowBackend:
    """One signature of a SavedModel, run by TensorFlow."""

    name = SAVED_MODEL
    sizes: tuple[int, ...] = ()
    any_shape = True

    def __init__(self, session: Any, signature: Signature, definition: Any) -> None:
        """Keep one signature of the session of `load_saved_model`; refuse what is no plain tensor of the graph."""
        import tensorflow as tf

        self._tf = tf
        # The callable does not keep the session alive.
        self._session = session
        self._outputs = tuple(signature.outputs)
        try:
            self._kinds = {name: np.dtype(numpy_type(spec.dtype)) for name, spec in signature.inputs.items()}
            self._call = _callable(session, signature, definition)
        except (KeyError, ValueError, TypeError, tf.errors.OpError) as error:
            raise StatusError(Code.UNIMPLEMENTED, _first_line(error)) from None

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the signature."""
        try:
            answers = self._call(*(np.asarray(inputs[name], kind) for name, kind in self._kinds.items()))
        except self._tf.errors.OpError as error:
            code = error.error_code if error.error_code in set(Code) else Code.INTERNAL
            raise StatusError(Code(code), _first_line(error)) from None
        except (ValueError, TypeError) as error:
            raise invalid(_first_line(error)) from None
        return dict(zip(self._outputs, map(np.asarray, answers), strict=True))


def _callable(session: Any, signature: Signature, definition: Any) -> Any:
    from tensorflow.core.protobuf import config_pb2

    options = config_pb2.CallableOptions()
    options.feed.extend(definition.inputs[name].name for name in signature.inputs)
    options.fetch.extend(definition.outputs[name].name for name in signature.outputs)
    # `Session.run` would hold each input to the shape that Python knows of its tensor, which C++, and so TF Serving,
    # does not. This is what Keras calls for the same purpose.
    return session._make_callable_from_options(options)  # noqa: SLF001


def _first_line(error: Exception) -> str:
    text = getattr(error, "message", None) or str(error)
    return next(iter(str(text).splitlines()), type(error).__name__)
