"""`run_fn`: train on the rows of the Trainer's splits and write the served model."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from absl import logging

from bike_pipeline import features, progress
from bike_pipeline.modeling import (
    architectures,
    distribution,
    energy,
    feedback,
    holidays,
    naive_baseline,
    objective,
    preprocessing,
    rows,
    saved_model,
    slices,
)
from bike_pipeline.modeling.feedback import Labels
from bike_pipeline.modeling.feedback_record import Feedback
from bike_pipeline.modeling.targets import RENTALS, Target
from bike_pipeline.modeling.trend import Trend
from bike_pipeline.settings.training import FeedbackSettings
from bike_pipeline.settings.tuning import tuned

LOSS_FILE = "loss.csv"
# TensorBoard's name for what is measured on the rows that a model is trained on; `tensorboard --logdir` finds it.
EVENTS_FOLDER = "train"
# DATA_CLASS_SCALAR of TensorFlow's summary.proto, which names the number nowhere in its public API.
_SCALAR = 1


def transformed(columns: rows.Columns, transform_graph: str) -> rows.Columns:
    """Return the transformed features and the labels of raw rows (see `preprocessing_fn`)."""
    outputs = (*preprocessing.OUTPUTS, *features.LABELS)
    transform = saved_model.Transform(transform_graph, rows.RAW_NAMES, outputs)
    parts: dict[str, list[npt.NDArray[Any]]] = {}
    for chunk in rows.chunks(columns, rows.ROWS_AT_ONCE):
        for name, tensor in transform({name: tf.constant(values) for name, values in chunk.items()}).items():
            parts.setdefault(name, []).append(tensor.numpy())
    return {name: np.concatenate(pieces) for name, pieces in parts.items()}


def split_labels(transformed_rows: rows.Columns) -> tuple[rows.Columns, npt.NDArray[np.float32]]:
    """Return the transformed features alone, and the labels by `features.LABELS`, shape (rows, labels), in rentals."""
    inputs = {name: values for name, values in transformed_rows.items() if name not in features.LABELS}
    return inputs, np.stack([transformed_rows[name] for name in features.LABELS], axis=1)


def repeatable(seed: int) -> None:
    """Seed Python, numpy and TensorFlow, and make TensorFlow's operations deterministic."""
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def fit(
    model: keras.Model,
    inputs: rows.Columns,
    target: npt.NDArray[Any],
    training: dict[str, Any],
    seed: int,
    loss: distribution.Loss,
    strategy: tf.distribute.Strategy | None = None,
    after_epoch: Callable[[int], None] | None = None,
    ema_momentum: float = objective.EMA_MOMENTUM,
) -> list[float]:
    """Train a model in place, from the weights that it has, and return the mean loss of each epoch.

    Args:
        model: from transformed features to log(1 + rentals), or with heads (see `architectures.with_heads`), made after
            `repeatable` and in the strategy's scope.
        inputs: the transformed features that the model reads, and others, as `split_labels` returns them.
        target: what the loss compares the model's answers with, shape (rows, …).
        training: the settings' section `training`, of which this reads all but the architecture.
        seed: seeds the order of the rows.
        loss: from a batch of targets and the model's answers to a scalar.
        strategy: the replicas to train over; None for one device.
        after_epoch: called with the number of epochs done.
        ema_momentum: of the moving average of the weights that is kept at the end; 0 keeps the last ones.
    """
    with distribution.scope(strategy):
        optimizer = keras.optimizers.AdamW(
            objective.schedule(training, len(target)),
            weight_decay=training["weight_decay"],
            use_ema=True,
            ema_momentum=ema_momentum,
        )
        optimizer.build(model.trainable_variables)
    batch_size, epochs = min(training["batch_size"], len(target)), training["epochs"]
    data = {tensor.name: tf.constant(inputs[tensor.name]) for tensor in model.inputs}
    labels = tf.constant(target)
    if strategy:
        step = distribution.step_of_replicas(strategy, model, optimizer, loss, data, labels, batch_size)
    else:
        step = _step(model, optimizer, loss, data, labels)
    losses = []
    for value in distribution.run_epochs(step, len(target), batch_size, epochs, seed):
        losses.append(value)
        progress.report(len(losses) / epochs, f"epoch {len(losses)} of {epochs}, loss {value:.3f}")
        if after_epoch:
            after_epoch(len(losses))
    optimizer.finalize_variable_values(model.trainable_variables)
    return losses


def _step(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    loss: distribution.Loss,
    data: dict[str, tf.Tensor],
    labels: tf.Tensor,
) -> distribution.Step:
    def step(chosen: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            output = model({name: tf.gather(values, chosen) for name, values in data.items()}, training=True)
            value = loss(tf.gather(labels, chosen), output) + sum(model.losses)
        optimizer.apply(tape.gradient(value, model.trainable_variables), model.trainable_variables)
        return value

    return step


def _write_events(losses: Sequence[float], training: dict[str, Any], count: int, folder: str) -> None:
    """Write loss and learning rate of each epoch, by Keras's names, as TensorBoard reads them."""
    schedule, steps = objective.schedule(training, count), math.ceil(count / training["batch_size"])
    # `tf.summary.scalar` writes the same, but only if the tensorboard package is installed.
    metadata = tf.compat.v1.SummaryMetadata(plugin_data={"plugin_name": "scalars"})
    metadata.data_class = _SCALAR
    writer = tf.summary.create_file_writer(folder)
    with writer.as_default():
        for epoch, loss in enumerate(losses):
            last_step = steps * (epoch + 1) - 1
            for name, value in (("epoch_loss", loss), ("epoch_learning_rate", float(schedule(last_step)))):
                tf.summary.write(name, tf.constant(value, tf.float32), step=epoch, metadata=metadata)
    writer.close()


def _warm_start(model: keras.Model, base_model: str | None) -> None:
    path = os.path.join(base_model, saved_model.EXTRA_FOLDER, saved_model.KERAS_FILE) if base_model else ""
    if not path or not tf.io.gfile.exists(path):
        logging.warning("Warm start: there is no serving model to start from; training from the beginning.")
        return
    # By layers: those of a network are in a blend as well.
    weights = {layer.name: layer.get_weights() for layer in keras.saving.load_model(path, compile=False).layers}
    own = [layer for layer in model.layers if layer.weights]
    if any([w.shape for w in weights.get(layer.name, [])] != [w.shape for w in layer.get_weights()] for layer in own):
        logging.warning("Warm start: the serving model has another architecture; training from the beginning.")
        return
    for layer in own:
        layer.set_weights(weights[layer.name])


def train(
    columns: rows.Columns,
    transform_graph: str,
    training: dict[str, Any],
    seed: int,
    base_model: str | None = None,
    strategy: tf.distribute.Strategy | None = None,
    target: Target = RENTALS,
) -> tuple[keras.Model, list[float]]:
    """Return a model trained on raw rows with the labels, and the mean loss of each epoch.

    The result is the same for the same arguments on the same machine; over several replicas but for the order of sums.
    With warm start it begins with the weights of `base_model`, a SavedModel's folder. `training` is the settings'
    section, `transform_graph` the artifact's folder; without a strategy one device trains. More replicas than a step
    has rows are a ConfigurationError.
    """
    return train_transformed(transformed(columns, transform_graph), training, seed, base_model, strategy, target)


def train_transformed(
    columns: rows.Columns,
    training: dict[str, Any],
    seed: int,
    base_model: str | None = None,
    strategy: tf.distribute.Strategy | None = None,
    target: Target = RENTALS,
) -> tuple[keras.Model, list[float]]:
    """Return what `train` does, for rows that have gone through the transform graph (see `transformed`)."""
    repeatable(seed)
    inputs, labels = split_labels(columns)
    trend = Trend.fit(inputs, labels, holidays.priors(training))
    logging.info("%s", trend)
    network, losses = None, list[float]()
    if training["architecture"] != architectures.TREES:
        network, losses = _network(inputs, labels, trend, training, seed, base_model, strategy, target)
    if strategy is not None and not strategy.extended.should_checkpoint:
        # One worker writes the model, and fits the trees for it.
        return network, losses
    return architectures.with_trees(network, training, trend, inputs, labels[:, 0], seed, target), losses


def _network(
    inputs: rows.Columns,
    labels: npt.NDArray[np.float32],
    trend: Trend,
    training: dict[str, Any],
    seed: int,
    base_model: str | None,
    strategy: tf.distribute.Strategy | None,
    target: Target,
) -> tuple[keras.Model, list[float]]:
    """Return what is trained by steps, and the mean loss of each epoch."""
    with distribution.scope(strategy):
        model = architectures.build(training, trend, target)
        if training["warm_start"]:
            _warm_start(model, base_model)
        to_train = architectures.with_heads(model)
    wanted = labels[:, 0] if to_train is model else labels
    losses = fit(to_train, inputs, wanted, training, seed, target.loss_of(wanted), strategy)
    if strategy is None:
        return model, losses
    # Variables of a strategy belong to its devices; what is written and served must not.
    alone = keras.models.clone_model(model)
    alone.set_weights(model.get_weights())
    return alone, losses


def write(
    trained: tuple[keras.Model, list[float]],
    columns: rows.Columns,
    transform_graph: str,
    training: dict[str, Any],
    run_dir: str,
    model_dir: str,
    newest: int | None = None,
    evaluated: rows.Columns | None = None,
    target: Target = RENTALS,
) -> None:
    """Write what `train` returned as the served model, with the naive baseline and the slices of its rows.

    The SavedModel is `model_dir`, which must not exist; the losses, as a table and as TensorBoard's events, go into the
    folder `run_dir`, which is made if need be. The last `newest` of the rows are the newest span's; None for all. The
    labels of the `evaluated` rows, which come after all others, are where the state of feedback begins.
    """
    model, losses = trained
    tf.io.gfile.makedirs(run_dir)
    with tf.io.gfile.GFile(os.path.join(run_dir, LOSS_FILE), "w") as file:
        file.write("epoch,loss\n" + "".join(f"{i},{loss:.6f}\n" for i, loss in enumerate(losses, 1)))
    _write_events(losses, training, rows.count(columns), os.path.join(run_dir, EVENTS_FOLDER))
    progress.report(1.0, "writing the served model")
    start = first_feedback(model, transform_graph, training, evaluated) if target.is_corrected else None
    saved_model.write(model, transform_graph, model_dir, evidence(columns, newest, target), start, target)


def first_feedback(
    model: keras.Model, transform_graph: str, training: dict[str, Any], evaluated: rows.Columns | None
) -> Feedback:
    """Return what a trained model knows of later labels: those of the raw rows that it is evaluated on; None for none.

    Of large data the last weeks are enough.
    """
    settings = FeedbackSettings.model_validate(training["feedback"])
    if evaluated is None:
        return Feedback(settings)
    hours = feedback.hours_of(evaluated)
    # The first weeks tell the intervals of those after them.
    _, places = np.unique(hours[::-1], return_index=True)
    places = len(hours) - 1 - places
    places = places[hours[places] > hours.max() - 2 * feedback.WINDOW_DAYS * feedback.HOURS_A_DAY]
    recent = {name: values[places] for name, values in evaluated.items()}
    inputs = transformed(recent, transform_graph)
    answer = model({tensor.name: tf.constant(inputs[tensor.name]) for tensor in model.inputs}, training=False)
    expected = np.maximum(np.expm1(np.asarray(answer, np.float64)), 0.0)
    return Feedback.of_backtest(Labels.of(recent, hours[places], expected), settings)


def evidence(columns: rows.Columns, newest: int | None = None, target: Target = RENTALS) -> dict[str, str]:
    """Return what the Evaluator must know of the rows that a model was trained on, as text files by name.

    The last `newest` rows are the newest span's; None for all.
    """
    label = target.label(columns[features.LABEL])
    naive = naive_baseline.NaiveBaseline.fit(columns["hr"], columns["workingday"], label, newest, target.prior)
    return {
        saved_model.NAIVE_BASELINE_FILE: naive.to_json(),
        saved_model.TRAINED_SLICES_FILE: slices.to_json(slices.rows_by_slice(columns)),
        **target.extra_files(),
    }


def run_fn(fn_args: Any) -> None:
    """TFX's entry point for training; `custom_config` holds the settings' section `training`, and `seed`.

    `hyperparameters`, where a search found any, go over that section.

    Raises:
        DataError: the examples lack a column or there are none.
        ConfigurationError: the strategy needs devices or workers that are not there.
        StageError: a worker failed.
        MissingExtraError: energy is to be measured, and codecarbon is not installed.
    """
    settings: Any = tuned(fn_args.custom_config["training"], fn_args.hyperparameters)
    with energy.measured(os.path.dirname(fn_args.serving_model_dir), wanted=settings["energy"]):
        _run(fn_args, settings)


def _run(fn_args: Any, settings: Any) -> None:
    config = fn_args.custom_config
    strategy = settings["strategy"]
    progress.report(0.0, "reading examples")
    if strategy == "multi_worker":
        from bike_pipeline.modeling import worker_processes
        from bike_pipeline.modeling.train_worker import TrainingJob

        worker_processes.run(
            TrainingJob(
                examples=tuple(fn_args.train_files),
                evaluated=tuple(fn_args.eval_files),
                schema_file=fn_args.schema_path,
                transform_graph=fn_args.transform_graph_path,
                base_model=fn_args.base_model or "",
                run_dir=fn_args.model_run_dir,
                model_dir=fn_args.serving_model_dir,
                training=settings,
                seed=config["seed"],
            )
        )
        return
    columns, newest = rows.read_to_train(fn_args.train_files, fn_args.schema_path)
    logging.info("Training on %d rows.", rows.count(columns))
    transform_graph = fn_args.transform_graph_path
    from bike_pipeline.modeling import target_choice

    target = target_choice.target_of(columns, transform_graph, settings, config["seed"])
    logging.info("The model answers %s.", target.meaning)
    trained = train(
        columns,
        transform_graph,
        settings,
        config["seed"],
        fn_args.base_model,
        distribution.mirrored() if strategy == "mirrored" else None,
        target,
    )
    folders = fn_args.model_run_dir, fn_args.serving_model_dir
    evaluated = rows.read(fn_args.eval_files, fn_args.schema_path)
    write(trained, columns, transform_graph, settings, *folders, newest, evaluated, target)
