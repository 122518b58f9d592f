"""`run_fn`: train on the rows of the Trainer's splits and write the served model."""

from __future__ import annotations

import math
import os
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_transform as tft
from absl import logging
from keras import ops

from bike_pipeline import features, progress
from bike_pipeline.modeling import architectures, reference, rows, saved_model

RAW_NAMES = (*features.INPUT_NAMES, features.LABEL)
# Rows that go through the transform graph at once: bounds memory, costs nothing.
TRANSFORM_CHUNK = 65_536
WARM_UP_SHARE = 0.08
EMA_MOMENTUM = 0.98
# exp() of a larger logit overflows the loss in the first steps; 9 means 8,102 rentals an hour.
LARGEST_LOG = 9.0


def _transformed(columns: rows.Columns, transform_graph: str) -> rows.Columns:
    layer = tft.TFTransformOutput(transform_graph).transform_features_layer()
    parts: dict[str, list[npt.NDArray[Any]]] = {}
    for chunk in rows.chunks(columns, TRANSFORM_CHUNK):
        for name, tensor in layer({name: tf.constant(values) for name, values in chunk.items()}).items():
            parts.setdefault(name, []).append(tensor.numpy())
    return {name: np.concatenate(pieces) for name, pieces in parts.items()}


def _loss(variance: float, mean: float) -> Any:
    """Return half the squared log error over its variance plus half the Poisson loss over the mean label.

    The first follows RMSLE, the second MAE and RMSE; alone, each loses on the other's metrics. The Poisson term is the
    negative log-likelihood of a count with mean exp(p), up to a constant.
    """

    def loss(label: keras.KerasTensor, log_prediction: keras.KerasTensor) -> keras.KerasTensor:
        # Keras may hand over (batch, 1) for (batch,); subtracting the two shapes would broadcast without a word.
        label, p = ops.reshape(label, (-1,)), ops.reshape(log_prediction, (-1,))
        squared_log_error = ops.mean(ops.square(ops.log1p(label) - p)) / variance
        poisson = ops.mean(ops.exp(ops.minimum(p, LARGEST_LOG)) - label * p) / mean
        return 0.5 * squared_log_error + 0.5 * poisson

    return loss


class _Report(keras.callbacks.Callback):  # type: ignore[misc]
    """Tells whoever listens how many epochs are done."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self._epochs = epochs

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        loss = (logs or {}).get("loss", math.nan)
        progress.report((epoch + 1) / self._epochs, f"epoch {epoch + 1} of {self._epochs}, loss {loss:.3f}")


def _warm_start(model: keras.Model, base_model: str | None) -> bool:
    """Take over the weights of the served model where its architecture is the same; say whether that was done."""
    path = os.path.join(base_model, saved_model.EXTRA_FOLDER, saved_model.KERAS_FILE) if base_model else ""
    if not path or not tf.io.gfile.exists(path):
        logging.warning("Warm start: there is no serving model to start from; training from the beginning.")
        return False
    weights = keras.saving.load_model(path, compile=False).get_weights()
    if [w.shape for w in weights] != [w.shape for w in model.get_weights()]:
        logging.warning("Warm start: the serving model has another architecture; training from the beginning.")
        return False
    model.set_weights(weights)
    return True


def train(columns: rows.Columns, transform_graph: str, training: dict[str, Any], seed: int, base_model: str | None = None,
          log_path: str | None = None) -> keras.Model:
    """Return a model trained on raw rows.

    The result is the same for the same arguments on the same machine: every generator is seeded and TensorFlow's
    operations are made deterministic.

    Args:
        columns: raw rows by column name, with the label.
        transform_graph: folder of the TransformGraph artifact.
        training: the `training` section of the settings.
        seed: seeds Python, numpy and TensorFlow.
        base_model: folder of the SavedModel to start from, where warm start is on.
        log_path: file for the loss of each epoch, as CSV.
    """
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    inputs = _transformed(columns, transform_graph)
    label = inputs.pop(features.LABEL)
    log_label = np.log1p(label)
    model = architectures.build(
        training["hidden_units"], training["embedding_dimensions"], training["dropout"], float(log_label.mean())
    )
    if training["warm_start"]:
        _warm_start(model, base_model)
    batch_size, epochs = training["batch_size"], training["epochs"]
    steps_per_epoch = math.ceil(len(label) / batch_size)
    steps = steps_per_epoch * epochs
    warm_up = max(1, round(WARM_UP_SHARE * steps))
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps - warm_up), warmup_target=training["learning_rate"], warmup_steps=warm_up
    )
    optimizer = keras.optimizers.AdamW(
        schedule, weight_decay=training["weight_decay"], use_ema=True, ema_momentum=EMA_MOMENTUM
    )
    # A constant label has no variance; the loss must not divide by it.
    loss = _loss(max(float(log_label.var()), 1e-6), max(float(label.mean()), 1e-6))
    # One call into the graph for a whole epoch: on a small model the calls cost more than the steps.
    model.compile(optimizer, loss, steps_per_execution=min(steps_per_epoch, 64), jit_compile=False)
    callbacks: list[keras.callbacks.Callback] = [_Report(epochs)]
    if log_path:
        callbacks.append(keras.callbacks.CSVLogger(log_path))
    model.fit(inputs, label, batch_size=batch_size, epochs=epochs, verbose=0, callbacks=callbacks)
    return model


def run_fn(fn_args: Any) -> None:
    """TFX's entry point for training.

    Args:
        fn_args: TFX's FnArgs. `custom_config` holds `training` (that section of the settings) and `seed`.

    Raises:
        DataError: the examples lack a column or there are none.
    """
    from tensorflow_metadata.proto.v0 import schema_pb2
    from tfx.utils import io_utils
    from tfx_bsl.tfxio import dataset_options

    config = fn_args.custom_config
    schema = io_utils.parse_pbtxt_file(fn_args.schema_path, schema_pb2.Schema())
    options = dataset_options.RecordBatchesOptions(batch_size=TRANSFORM_CHUNK, num_epochs=1, shuffle=False)
    progress.report(0.0, "reading examples")
    batches = fn_args.data_accessor.record_batch_factory(fn_args.train_files, options, schema)
    columns = rows.to_columns(batches, RAW_NAMES)
    logging.info("Training on %d rows.", rows.count(columns))
    tf.io.gfile.makedirs(fn_args.model_run_dir)
    model = train(
        columns,
        fn_args.transform_graph_path,
        config["training"],
        config["seed"],
        fn_args.base_model,
        os.path.join(fn_args.model_run_dir, "loss.csv"),
    )
    progress.report(1.0, "writing the served model")
    hourly_mean = reference.HourlyMean.fit(columns["hr"], columns["workingday"], columns[features.LABEL])
    saved_model.write(
        model,
        fn_args.transform_graph_path,
        fn_args.serving_model_dir,
        {saved_model.REFERENCE_FILE: hourly_mean.to_json()},
    )
