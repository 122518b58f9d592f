"""Magnitude pruning of the dense layers: the smallest weights become zero, step by step, while training goes on.

A plain runtime multiplies by zeros as by any number, so this makes neither the file smaller nor the answer faster; what
is sent is smaller, since zeros compress.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from bike_pipeline.exporting.compression.material import Teacher
from bike_pipeline.modeling import training
from bike_pipeline.settings.exporting import PruningSettings

# Share of the epochs over which weights are taken away; the rest heals the last cut.
RAMP = 0.5


class _Kept(keras.constraints.Constraint):
    """Holds the weights that were taken away at zero."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._kept = keras.Variable(np.ones(shape), trainable=False, dtype="float32")

    def __call__(self, weights: Any) -> Any:
        return weights * self._kept

    def keep(self, weights: Any, sparsity: float) -> None:
        """Keep the largest weights, all but a share of `sparsity`; one that was taken away stays away."""
        size = np.abs(weights * self._kept)
        cut = np.quantile(size, sparsity, method="lower")
        self._kept.assign((size > cut).astype(np.float32))


def sparsity_after(epoch: int, ramp: int, final: float) -> float:
    """Return the share of weights to take away after an epoch.

    s = s_f · (1 − (1 − t / n)³): fast while many weights are superfluous, slow towards the end (Zhu and Gupta 2017, "To
    prune, or not to prune", arXiv 1710.01878, equation 1 with nothing taken away at first).

    Args:
        epoch: epochs done, t.
        ramp: epochs until all are taken away, n.
        final: the share at the end, s_f.
    """
    return final * (1.0 - (1.0 - min(epoch / ramp, 1.0)) ** 3)


def prunable(model: keras.Model) -> list[keras.layers.Dense]:
    """Return the dense layers that can spare weights: those with more than one unit."""
    return [layer for layer in model.layers if isinstance(layer, keras.layers.Dense) and layer.units > 1]


def train(teacher: Teacher, settings: PruningSettings, further: dict[str, Any], seed: int) -> keras.Model:
    """Return the blessed model with a share of its dense weights at zero, trained further meanwhile."""
    training.repeatable(seed)
    model = teacher.model()
    kept = [(layer, _Kept(tuple(layer.kernel.shape))) for layer in prunable(model)]
    for layer, constraint in kept:
        layer.kernel.constraint = constraint
    ramp = max(1, round(RAMP * settings.epochs))

    def cut(epochs: int) -> None:
        for layer, constraint in kept:
            if epochs <= ramp:
                constraint.keep(ops.convert_to_numpy(layer.kernel), sparsity_after(epochs, ramp, settings.sparsity))
                layer.kernel.assign(constraint(layer.kernel))

    how = {**further, "epochs": settings.epochs, "learning_rate": settings.learning_rate}
    training.fit(model, teacher.inputs, teacher.label, how, seed, training.loss_of(teacher.label), after_epoch=cut)
    for layer, constraint in kept:
        # The moving average of a weight remembers what it was before it was taken away.
        layer.kernel.assign(constraint(layer.kernel))
        layer.kernel.constraint = None
    return model


def sparsity_of(model: keras.Model) -> float:
    """Return the share of the prunable layers' weights that are zero."""
    kernels = [ops.convert_to_numpy(layer.kernel).ravel() for layer in prunable(model)]
    return float(np.mean(np.concatenate(kernels) == 0.0)) if kernels else 0.0
