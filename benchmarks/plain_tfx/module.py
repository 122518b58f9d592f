"""The plain way's user code: what TFX loads from a module file for Transform, Trainer and Evaluator.

Written as TFX's tutorials write it: `tf.data` from the transformed examples, Keras `fit`, the transform layer inside
the exported signatures. Features and architecture are the product's own, so that both ways compute the same model.
"""

from __future__ import annotations

from typing import Any

import apache_beam as beam
import keras
import numpy as np
import tensorflow as tf
import tensorflow_model_analysis as tfma
import tensorflow_transform as tft
from tfx import v1 as tfx
from tfx_bsl.public import tfxio

from bike_pipeline import features
from bike_pipeline.modeling import architectures, objective, preprocessing
from bike_pipeline.modeling.trend import Trend


def preprocessing_fn(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Return the transformed features and the label: the product's own, without the optional inputs."""
    kinds = {"int": tf.int64, "float": tf.float32}
    absent = {f.name: tf.cast(tf.zeros_like(inputs[features.HOUR]), kinds[f.kind]) for f in features.OPTIONAL_INPUTS}
    return preprocessing.preprocessing_fn({**inputs, **absent})


def _dataset(fn_args: tfx.components.FnArgs, transform_output: tft.TFTransformOutput, batch_size: int) -> Any:
    options = tfxio.TensorFlowDatasetOptions(batch_size=batch_size, num_epochs=1)
    rows = fn_args.data_accessor.tf_dataset_factory(
        fn_args.train_files, options, transform_output.transformed_metadata.schema
    )
    return rows.map(lambda columns: (columns, tf.stack([columns[name] for name in features.LABELS], axis=1)))


def _signatures(model: keras.Model, transform_output: tft.TFTransformOutput) -> dict[str, Any]:
    # The layer must be an attribute of the model to be saved with it.
    model.tft_layer = transform_output.transform_features_layer()
    kinds = {"int": tf.int64, "float": tf.float32}
    raw_spec = {f.name: tf.TensorSpec([None], kinds[f.kind], name=f.name) for f in features.REQUIRED_INPUTS}

    def rentals(raw: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        transformed = model.tft_layer(raw)
        output = model({tensor.name: transformed[tensor.name] for tensor in model.inputs}, training=False)
        return {features.LABEL: tf.maximum(tf.exp(output) - 1.0, 0.0)}

    @tf.function(input_signature=[raw_spec])
    def serve_raw(raw: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return rentals(raw)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serve_examples(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        spec = transform_output.raw_feature_spec()
        wanted = {name: spec[name] for name in raw_spec}
        return rentals(tf.io.parse_example(examples, wanted))

    return {"serving_default": serve_raw, "serving_examples": serve_examples}


def run_fn(fn_args: tfx.components.FnArgs) -> None:
    """Train with Keras `fit` and save the model with both signatures."""
    training = fn_args.custom_config["training"]
    keras.utils.set_random_seed(fn_args.custom_config["seed"])
    transform_output = tft.TFTransformOutput(fn_args.transform_output)
    dataset = _dataset(fn_args, transform_output, training["batch_size"])
    # In one pass: each one draws another order.
    batches = list(dataset)
    labels = np.concatenate([batch.numpy() for _, batch in batches])
    of_trees = {
        name: np.concatenate([columns[name].numpy() for columns, _ in batches])
        for name in (preprocessing.PLAIN, preprocessing.DAYS_BEFORE_END)
    }
    # Where the level's line begins; how it grows is left out here.
    trend = Trend(tuple(np.log1p(labels).mean(axis=0).tolist()), (0.0,) * len(features.LABELS))
    model = architectures.build(training, trend)
    names = {tensor.name for tensor in model.inputs}
    to_train = architectures.with_heads(model)
    optimizer = keras.optimizers.AdamW(
        objective.schedule(training, len(labels)),
        weight_decay=training["weight_decay"],
        use_ema=True,
        ema_momentum=objective.EMA_MOMENTUM,
    )
    to_train.compile(optimizer=optimizer, loss=objective.loss_of(labels))
    rows = dataset.map(lambda columns, label: ({name: columns[name] for name in names}, label))
    to_train.fit(rows, epochs=training["epochs"], verbose=2)
    whole = architectures.with_trees(model, training, trend, of_trees, labels[:, 0], fn_args.custom_config["seed"])
    tf.saved_model.save(whole, fn_args.serving_model_dir, signatures=_signatures(whole, transform_output))


def _add_hour_band(extracts: dict[str, Any]) -> dict[str, Any]:
    hours = np.asarray(extracts[tfma.FEATURES_KEY][features.HOUR])
    starts = np.asarray(features.HOUR_BANDS)
    band = starts[np.searchsorted(starts, hours, side="right") - 1]
    return {**extracts, tfma.FEATURES_KEY: {**extracts[tfma.FEATURES_KEY], "hour_band": band}}


def custom_extractors(eval_shared_model: Any, eval_config: Any, tensor_adapter_config: Any) -> list[Any]:
    """Return TFMA's own extractors, with the hour band of each row added to its features."""
    first, *others = tfma.default_extractors(
        eval_shared_model=eval_shared_model, eval_config=eval_config, tensor_adapter_config=tensor_adapter_config
    )
    return [first, tfma.extractors.Extractor("AddHourBand", beam.Map(_add_hour_band)), *others]
