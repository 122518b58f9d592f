"""The state of feedback in the served graph: one table beside the model's weights, which an update replaces.

The graph stays as it is, so that every format that is made of it carries the state, and a pushed version with another
state differs from the one before in one tensor.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2

from bike_pipeline import features
from bike_pipeline.modeling import feedback, preprocessing
from bike_pipeline.modeling.feedback import FeedbackState

if TYPE_CHECKING:
    import numpy.typing as npt

AS_OF_NAME, TABLE_NAME = "feedback_as_of", "feedback_table"
_CHECKPOINT = os.path.join("variables", "variables")
# Where TensorFlow keeps which variable has which key.
_OBJECTS = "_CHECKPOINTABLE_OBJECT_GRAPH"


class ServedState(tf.Module):
    """The state as variables of the model, and what the served graph makes of an answer with them."""

    def __init__(self, state: FeedbackState) -> None:
        """Hold a state."""
        super().__init__(name="feedback")
        # A whole number: formats of 16 bits round the others.
        self.as_of = tf.Variable(state.as_of, trainable=False, dtype=tf.int32, name=AS_OF_NAME)
        self.rows = tf.Variable(state.table(), trainable=False, dtype=tf.float32, name=TABLE_NAME)

    @staticmethod
    def _group(raw: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Return `feedback.groups_of` the rows, (batch,) int64."""
        bands = np.searchsorted(features.HOUR_BANDS, np.arange(preprocessing.HOURS), side="right") - 1
        band = tf.gather(tf.constant(bands, tf.int64), preprocessing.code(raw["hr"], "hr"))
        # Codes count from 0.
        is_rain = tf.cast(preprocessing.code(raw["weathersit"], "weathersit") > feedback.RAIN - 2, tf.int64)
        kind = is_rain * 2 + preprocessing.code(raw["workingday"], "workingday")
        return kind * feedback.BANDS + band

    def corrected(self, rentals: tf.Tensor, raw: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Return the rentals at the level of the last labels, (batch,); see `feedback.weight_of`.

        A row without a day of the month comes after every label of its month.
        """
        # Formats strip the names of TensorFlow's calls, and the transforms have operations of the same names.
        with tf.name_scope("feedback"):
            hour, latest = preprocessing.hours(raw)
            days = tf.cast(hour - self.as_of, tf.float32) / float(feedback.HOURS_A_DAY)
            waning = (feedback.WINDOW_DAYS - days) / float(feedback.WINDOW_DAYS - feedback.HOLDS_DAYS)
            is_after = tf.cast(latest > self.as_of, tf.float32)
            level = tf.gather(self.rows[:, 0], self._group(raw))
            return rentals * tf.exp(level * tf.clip_by_value(waning, 0.0, 1.0) * is_after)

    def quantiles(self, rentals: tf.Tensor, raw: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Return the quantiles around corrected rentals, (batch, quantiles); NaN where they are not known."""
        unit = tf.sqrt(rentals + tf.square(feedback.RELATIVE * rentals) + feedback.FLOOR)
        found = tf.expand_dims(rentals, 1) + tf.gather(self.rows[:, 1:], self._group(raw)) * tf.expand_dims(unit, 1)
        # A maximum with 0 would make NaN a 0 on some processors.
        return tf.where(found < 0.0, tf.zeros_like(found), found)


def replace(folder: str, state: FeedbackState) -> None:
    """Put a state into a SavedModel's folder in the place of the one there; nothing else of the model changes.

    Raises:
        ValueError: the model holds no state, or one of other quantiles.
    """
    path = os.path.join(folder, _CHECKPOINT)
    tensors = _tensors(path)
    for name, value in {AS_OF_NAME: np.asarray(state.as_of, np.int32), TABLE_NAME: state.table()}.items():
        for key in _keys(tensors, name):
            if tensors[key].shape != value.shape:
                raise ValueError(f"the state has shape {value.shape} where the model holds one of {tensors[key].shape}")
            tensors[key] = value
    partial = path + "-new"
    tf.raw_ops.SaveV2(
        prefix=partial,
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=[tf.constant(value) for value in tensors.values()],
    )
    for suffix in (".index", ".data-00000-of-00001"):
        os.replace(partial + suffix, path + suffix)


def read(folder: str) -> tuple[int, npt.NDArray[np.float32]]:
    """Return hour and table of the state that a SavedModel's folder holds; ValueError if it holds none."""
    tensors = _tensors(os.path.join(folder, _CHECKPOINT))
    as_of, table = (tensors[_keys(tensors, name)[0]] for name in (AS_OF_NAME, TABLE_NAME))
    return int(as_of), table


def _tensors(path: str) -> dict[str, Any]:
    reader = tf.train.load_checkpoint(path)
    return {name: reader.get_tensor(name) for name in sorted(reader.get_variable_to_shape_map())}


def _keys(tensors: Mapping[str, Any], name: str) -> list[str]:
    """Return the keys of a variable; ValueError if there is none of that name."""
    graph = trackable_object_graph_pb2.TrackableObjectGraph.FromString(tensors[_OBJECTS])
    every = [attribute for node in graph.nodes for attribute in node.attributes]
    found = sorted({attribute.checkpoint_key for attribute in every if attribute.full_name == name})
    if not found:
        raise ValueError("the model holds no state of feedback")
    return found
