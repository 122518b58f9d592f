"""Training on several devices or in several processes, with the result of one.

Every replica takes its part of each step's rows; gradients are summed over the replicas, each row weighted by one over
the rows of the whole step, and the L2 terms counted once. Dropout drops what it would drop on one device: each replica
draws the mask of the whole step and keeps the rows that are its own. What is left is the order of sums in float32,
about 1e-7 a step.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from bike_pipeline.errors import ConfigurationError

Loss = Callable[[keras.KerasTensor, keras.KerasTensor], keras.KerasTensor]
Step = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def row_orders(count: int, batch_size: int, epochs: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield each epoch's order of `count` rows, seeded; the last batch is filled up from the epoch's first rows."""
    filled = math.ceil(count / batch_size) * batch_size - count
    generator = np.random.default_rng(seed)
    for _ in range(epochs):
        order = generator.permutation(count)
        yield np.concatenate([order, order[:filled]])


def run_epochs(step: Step, count: int, batch_size: int, epochs: int, seed: int) -> Iterator[float]:
    """Run a step for each batch of `count` rows and yield the mean loss of each epoch.

    One call runs a whole epoch in the graph, which Keras's `fit` does less directly: for a model this small its tracing
    and feeding cost more than the steps. `step` takes the places of a batch's rows and the number of the step.
    """
    steps = math.ceil(count / batch_size)

    @tf.function(autograph=False, jit_compile=False)
    def epoch(order: tf.Tensor, done: tf.Tensor) -> tf.Tensor:
        def body(index: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return index + 1, total + step(order[index * batch_size : (index + 1) * batch_size], done + index)

        _, total = tf.while_loop(
            lambda index, _: index < steps, body, (tf.constant(0), tf.constant(0.0)), parallel_iterations=1
        )
        return total / float(steps)

    for number, order in enumerate(row_orders(count, batch_size, epochs, seed)):
        yield float(epoch(tf.constant(order), tf.constant(number * steps)))


def mirrored() -> tf.distribute.Strategy:
    """Return the strategy for all GPUs of this machine, or its logical CPUs; ConfigurationError if it is only one."""
    strategy = tf.distribute.MirroredStrategy()
    if strategy.num_replicas_in_sync < 2:
        device = tf.config.list_logical_devices()[-1].name.rpartition("device:")[2]
        raise ConfigurationError(
            f"mirrored training needs at least two devices, and this machine has one ({device})",
            where="training.strategy",
            fix="set it to none, or to multi_worker for several processes",
        )
    return strategy


def scope(strategy: tf.distribute.Strategy | None) -> contextlib.AbstractContextManager[Any]:
    """Return the context in which model and optimizer are made; without a strategy, none."""
    return strategy.scope() if strategy else contextlib.nullcontext()


class _ReplicaRows:
    """Where a replica's rows stand in the step that is traced; read by its dropout layers."""

    rows: int = 0
    start: tf.Tensor
    stop: tf.Tensor
    step: tf.Tensor


class _DropoutOfStep(keras.layers.Layer):
    """Drops what `Dropout` would drop on one device, for the replica's rows.

    Input and output: (rows of the replica, units).
    """

    def __init__(self, dropout: keras.layers.Dropout, place: _ReplicaRows) -> None:
        super().__init__(name=dropout.name)
        self._rate = float(dropout.rate)
        self._seed = dropout.seed_generator.state.numpy().astype(np.int32)
        self._place = place

    def call(self, inputs: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        """Return the inputs, masked and scaled in training."""
        if not training:
            return inputs
        # As Keras's generator counts: the second number of the seed goes up by one with each draw.
        seed = tf.constant(self._seed) + tf.stack([0, self._place.step])
        ones = tf.ones((self._place.rows, inputs.shape[1]), inputs.dtype)
        mask = tf.nn.experimental.stateless_dropout(ones, rate=self._rate, seed=seed)
        return inputs * mask[self._place.start : self._place.stop]


def step_of_replicas(
    strategy: tf.distribute.Strategy,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    loss: Loss,
    data: Mapping[str, tf.Tensor],
    labels: tf.Tensor,
    batch_size: int,
) -> Step:
    """Return the step of `run_epochs` that trains in place over the strategy's replicas.

    Every process holds all rows, and all of them visit them in the same order; what travels are gradients. Model and
    optimizer are made in the strategy's scope. The step raises tensorflow.errors.OpError when another worker is gone;
    fewer rows in a step than there are replicas are a ConfigurationError.
    """
    replicas = strategy.num_replicas_in_sync
    if batch_size < replicas:
        raise ConfigurationError(
            f"steps of {batch_size} rows cannot be split over {replicas} replicas",
            where="training.batch_size",
            fix="train on more rows, in larger batches, or with fewer workers",
        )
    place = _ReplicaRows()

    def of_replica(layer: keras.layers.Layer) -> keras.layers.Layer:
        return _DropoutOfStep(layer, place) if isinstance(layer, keras.layers.Dropout) else layer

    with strategy.scope():
        # The same layers and weights, with dropout that knows the rows of the step.
        replica_model = keras.models.clone_model(model, clone_function=of_replica)
    bounds = tf.constant(np.linspace(0, batch_size, replicas + 1).round().astype(np.int32))

    @tf.autograph.experimental.do_not_convert
    def of_replicas(batch: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        place.rows, place.step = batch_size, number
        place.start, place.stop = bounds[replica], bounds[replica + 1]
        chosen = batch[place.start : place.stop]
        share = tf.cast(place.stop - place.start, tf.float32) / batch_size
        once = tf.cast(tf.equal(replica, 0), tf.float32)
        with tf.GradientTape() as tape:
            output = replica_model({name: tf.gather(values, chosen) for name, values in data.items()}, training=True)
            value = loss(tf.gather(labels, chosen), output) * share + sum(model.losses) * once
        # The optimizer sums the gradients over the replicas.
        optimizer.apply(tape.gradient(value, model.trainable_variables), model.trainable_variables)
        return value

    def step(batch: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        values = strategy.run(of_replicas, args=(batch, number))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)

    return step
