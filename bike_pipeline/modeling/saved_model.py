"""The model as it is served: one SavedModel with the transforms inside and four signatures.

`serving_default` takes raw features as plain tensors, one a feature, as a REST client sends them, and only those that
every client has. `serving_all_inputs` takes the optional ones, too; it is a signature of its own, since TF Serving
refuses a request that lacks an input. `serving_examples` takes serialized tf.Examples with or without them. All answer
`cnt`, in rentals, or what the target is called, and none knows a column that the model does not read.
`serving_intervals` takes what `serving_all_inputs` does and answers quantiles besides; it is a signature of its own,
since TF Serving's REST answers change their form with a second output. A target that is a class has `serving_classify`
instead, for TF Serving's Classify requests. A row with a number that is not finite is
answered with NaN, by every format that is made of this graph (docs/decisions/0017).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_transform.saved import saved_transform_io_v2

from bike_pipeline import features
from bike_pipeline.features import (
    SERVING_ALL_INPUTS,
    SERVING_CLASSIFY,
    SERVING_DEFAULT,
    SERVING_EXAMPLES,
    SERVING_INTERVALS,
    Feature,
)
from bike_pipeline.modeling import golden, targets
from bike_pipeline.modeling.feedback_record import FEEDBACK_FILE, Feedback
from bike_pipeline.modeling.served_state import ServedState
from bike_pipeline.modeling.targets import RENTALS, Target
from bike_pipeline.storage.files import plain_folder

# TensorFlow Serving leaves this folder alone, and whatever copies the model copies it too.
EXTRA_FOLDER = "assets.extra"
KERAS_FILE = "model.keras"
NAIVE_BASELINE_FILE = "hourly_mean.json"
TRAINED_SLICES_FILE = "trained_slices.json"


_KINDS = {"int": tf.int64, "float": tf.float32}


def input_signature(inputs: Iterable[Feature] = features.MODEL_INPUTS) -> dict[str, tf.TensorSpec]:
    """Return the tensors that a signature of these inputs takes: one of shape (batch,) a feature, int64 or float32."""
    return {f.name: tf.TensorSpec([None], _KINDS[f.kind], name=f.name) for f in inputs}


class Transform:
    """The transform graph as a function of raw tensors.

    TFT's own Keras layer does the same through the former Keras; saving it costs more than training the model.
    """

    def __init__(self, transform_graph: str, inputs: Iterable[str], outputs: Iterable[str]) -> None:
        """Load the graph, cut down to the given outputs; ValueError if one needs a raw column not among the inputs."""
        path = tft.TFTransformOutput(transform_graph).transform_savedmodel_dir
        with plain_folder(path) as folder:
            self._loader = saved_transform_io_v2.SavedModelLoader(folder)
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self._loader.finalize(self.inputs, self.outputs)

    def __call__(self, raw: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Return the transformed tensors of raw ones, each of shape (batch, …)."""
        transformed: dict[str, tf.Tensor] = self._loader.apply_transform_model({n: raw[n] for n in self.inputs})
        return transformed


def zero_or_nan(raw: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Return 0 for each row of raw features, shape (batch,) float32, and NaN if an input is not finite.

    To be added behind all else. Runtimes differ in what clipping, quantization and the exponential make of NaN, and a
    clipped infinity looks like a hot day; none of them touches a difference and a sum in float32.
    """
    # In one tensor, which the transforms make as well. Of columns one by one, LiteRT's converter takes x - x for 0.
    # In a scope: converters drop that of the transform graph, and the quantizer of LiteRT wants names that differ.
    with tf.name_scope("zero_or_nan"):
        numbers = tf.stack([raw[f.name] for f in features.MODEL_INPUTS if f.kind == "float"], axis=1)
        return tf.reduce_sum(numbers - numbers, axis=1)


def write(
    model: keras.Model,
    transform_graph: str,
    path: str,
    extra_files: dict[str, str],
    feedback: Feedback | None,
    target: Target = RENTALS,
) -> None:
    """Write the model of a target with the transform graph in front of it and TF Serving's warm-up beside it.

    The folder `path` must not exist; `extra_files` are texts by name for `assets.extra`; `feedback` is what its answer
    is corrected by; None of a target that later labels do not correct.
    """
    transform = Transform(
        transform_graph, [f.name for f in features.MODEL_INPUTS], [tensor.name for tensor in model.inputs]
    )

    state = None if feedback is None else ServedState(feedback.state)

    def predict(raw: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        answer = target.served(model(transform(raw), training=False))
        corrected = answer if state is None else state.corrected(answer, raw)
        return {target.answer: corrected + zero_or_nan(raw)}

    def predict_intervals(raw: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        assert feedback is not None
        assert state is not None
        answer = predict(raw)
        names = feedback.settings.quantiles
        quantiles = tf.unstack(state.quantiles(answer[target.answer], raw), num=len(names), axis=1)
        return answer | dict(zip(names, quantiles, strict=True))

    def predict_required(raw: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        rows = tf.shape(raw[features.HOUR])
        return predict(
            raw | {f.name: tf.fill(rows, tf.constant(f.default, _KINDS[f.kind])) for f in features.OPTIONAL_INPUTS}
        )

    example_spec = {f.name: tf.io.FixedLenFeature([], _KINDS[f.kind], f.default) for f in features.MODEL_INPUTS}

    def predict_examples(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return predict(tf.io.parse_example(examples, example_spec))

    def classify(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return target.classes(predict_examples(inputs)[target.answer])

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(SERVING_DEFAULT, predict_required, [input_signature(features.REQUIRED_INPUTS)])
    archive.add_endpoint(SERVING_ALL_INPUTS, predict, [input_signature()])
    archive.add_endpoint(SERVING_EXAMPLES, predict_examples, [tf.TensorSpec([None], tf.string, name="examples")])
    if state is not None:
        archive.track(state)
        archive.add_endpoint(SERVING_INTERVALS, predict_intervals, [input_signature()])
    if target.CLASSES:
        spec = tf.TensorSpec([None], tf.string, name=tf.saved_model.CLASSIFY_INPUTS)
        archive.add_endpoint(SERVING_CLASSIFY, classify, [spec])
    # Nobody trains what is served, and whoever loads it would keep the gradients, and with them all of it, for ever.
    archive.write_out(path, options=tf.saved_model.SaveOptions(experimental_custom_gradients=False), verbose=False)
    if target.CLASSES:
        _set_method(path, SERVING_CLASSIFY, tf.saved_model.CLASSIFY_METHOD_NAME)
    extra = os.path.join(path, EXTRA_FOLDER)
    tf.io.gfile.makedirs(extra)
    model.save(os.path.join(extra, KERAS_FILE))
    for name, text in (extra_files if feedback is None else {**extra_files, FEEDBACK_FILE: feedback.to_json()}).items():
        with tf.io.gfile.GFile(os.path.join(extra, name), "w") as file:
            file.write(text)
    golden.write_warmup(extra)


def target_of(path: str) -> Target:
    """Return what a SavedModel was trained for; a ModelError says that its file cannot be read."""
    file_path = os.path.join(path, EXTRA_FOLDER, targets.FILE)
    if not tf.io.gfile.exists(file_path):
        # Of rentals, as every model of an earlier release.
        return RENTALS
    with tf.io.gfile.GFile(file_path) as file:
        return targets.from_json(file.read(), file_path)


def _proto(path: str) -> tuple[Any, str]:
    """Return what a SavedModel's file holds, and the file."""
    from tensorflow.core.protobuf import saved_model_pb2

    proto, file_path = saved_model_pb2.SavedModel(), os.path.join(path, tf.saved_model.SAVED_MODEL_FILENAME_PB)
    with tf.io.gfile.GFile(file_path, "rb") as file:
        proto.ParseFromString(file.read())
    return proto, file_path


def _set_method(path: str, signature: str, method: str) -> None:
    """Say in a SavedModel which requests a signature is for: TensorFlow 2 writes Predict for all."""
    proto, file_path = _proto(path)
    proto.meta_graphs[0].signature_def[signature].method_name = method
    with tf.io.gfile.GFile(file_path, "wb") as file:
        file.write(proto.SerializeToString(deterministic=True))


def signature_of(path: str) -> dict[str, Any]:
    """Return a SavedModel's signatures, {signature: {"inputs": {name: dtype}, "outputs": …}}; nothing is loaded."""
    proto, _ = _proto(path)

    def tensors(infos: Any) -> dict[str, str]:
        return {name: tf.dtypes.as_dtype(infos[name].dtype).name for name in sorted(infos)}

    signatures = proto.meta_graphs[0].signature_def
    return {
        name: {"inputs": tensors(signatures[name].inputs), "outputs": tensors(signatures[name].outputs)}
        for name in sorted(signatures)
        if not name.startswith("__")
    }
