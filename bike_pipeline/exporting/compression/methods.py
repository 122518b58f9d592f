"""The methods by name: each makes another Keras model of the blessed one, with the same inputs and the same output.

- `pruning`: the smallest weights of the dense layers become zero, step by step, while training goes on. A plain runtime
  multiplies by zeros as by any number, so this makes neither the file smaller nor the answer faster; what is sent is
  smaller, since zeros compress.
- `distillation`: a small student learns the blessed model's answers beside the labels. The teacher's answers carry less
  noise than the labels, so a student with few weights comes closer to the truth than by the labels alone (Hinton,
  Vinyals and Dean 2015, "Distilling the knowledge in a neural network", arXiv 1503.02531; here for a regression, with
  the same loss on both targets).
- `quantization_aware`: the dense layers see themselves in eight bits while they are trained further. What comes out is
  an ordinary model; its weights lie where rounding them to eight bits costs little.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops
from keras.quantizers import fake_quant_with_min_max_vars

from bike_pipeline.errors import ExportError
from bike_pipeline.exporting.compression.candidates import Material
from bike_pipeline.exporting.formats.base import in_parts
from bike_pipeline.modeling import architectures, holidays, objective, saved_model, training
from bike_pipeline.modeling.distribution import Loss
from bike_pipeline.modeling.rows import Columns
from bike_pipeline.modeling.trend import Trend
from bike_pipeline.settings import exporting

# Share of the epochs over which weights are taken away; the rest heals the last cut.
RAMP = 0.5
# A channel whose weights are all zero still needs a range.
_SMALLEST = 1e-6


@dataclass(frozen=True)
class Teacher:
    """The blessed model as it is trained further or taught from."""

    saved_model: Path
    inputs: Columns
    labels: npt.NDArray[np.float32]

    @property
    def label(self) -> npt.NDArray[np.float32]:
        """The rentals of the training rows, shape (rows,)."""
        rentals: npt.NDArray[np.float32] = self.labels[:, 0]
        return rentals

    @classmethod
    def of(cls, material: Material) -> Teacher:
        """Put the training rows through the transform graph."""
        return cls(
            material.saved_model,
            *training.split_labels(training.transformed(material.train, str(material.transform_graph))),
        )

    def model(self) -> keras.Model:
        """Return a fresh copy of the blessed Keras model, from transformed features to log(1 + rentals)."""
        path = self.saved_model / saved_model.EXTRA_FOLDER / saved_model.KERAS_FILE
        if not path.is_file():
            raise ExportError(
                "the trained Keras model is not there, so there is nothing to train further",
                where=str(path),
                fix="run the pipeline again; models of this release carry it",
            )
        model: keras.Model = keras.saving.load_model(path, compile=False)
        return model

    def answers(self) -> npt.NDArray[np.float32]:
        """Return the blessed model's answers to the training rows, in rentals, shape (rows,)."""
        model = self.model()
        names = [tensor.name for tensor in model.inputs]
        logs = in_parts(lambda part: model(part, training=False).numpy(), {name: self.inputs[name] for name in names})
        rentals: npt.NDArray[np.float32] = np.maximum(np.expm1(logs), 0.0).astype(np.float32)
        return rentals


def compressed(
    method: exporting.Method,
    teacher: Teacher,
    settings: exporting.CompressionSettings,
    further: dict[str, Any],
    seed: int,
) -> keras.Model:
    """Return the model that a method makes of the blessed one."""
    if method == "plain":
        return teacher.model()
    makers: dict[str, Any] = {
        "pruning": _pruned,
        "distillation": _student,
        "quantization_aware": _trained_in_eight_bits,
    }
    own = getattr(settings, method)
    how = {**further, "epochs": own.epochs, "learning_rate": own.learning_rate}
    model: keras.Model = makers[method](teacher, own, how, seed)
    return model


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
    """Return the share of weights to take away after `epoch` of `ramp` epochs, `final` from the last of them on.

    s = s_f · (1 − (1 − t / n)³): fast while many weights are superfluous, slow towards the end (Zhu and Gupta 2017, "To
    prune, or not to prune", arXiv 1710.01878, equation 1 with nothing taken away at first).
    """
    return final * (1.0 - (1.0 - min(epoch / ramp, 1.0)) ** 3)


def prunable(model: keras.Model) -> list[keras.layers.Dense]:
    """Return the dense layers that can spare weights: those with more than one unit."""
    return [layer for layer in model.layers if isinstance(layer, keras.layers.Dense) and layer.units > 1]


def sparsity_of(model: keras.Model) -> float:
    """Return the share of the prunable layers' weights that are zero."""
    kernels = [ops.convert_to_numpy(layer.kernel).ravel() for layer in prunable(model)]
    return float(np.mean(np.concatenate(kernels) == 0.0)) if kernels else 0.0


def _pruned(teacher: Teacher, settings: exporting.PruningSettings, how: dict[str, Any], seed: int) -> keras.Model:
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

    training.fit(model, teacher.inputs, teacher.label, how, seed, objective.loss_of(teacher.label), after_epoch=cut)
    for layer, constraint in kept:
        # The moving average of a weight remembers what it was before it was taken away.
        layer.kernel.assign(constraint(layer.kernel))
        layer.kernel.constraint = None
    return model


def loss_of(label: Any, teacher_weight: float) -> Loss:
    """Return the training loss against the labels and, as a share of `teacher_weight`, the teacher's answers.

    `label` has the rentals of the training rows, shape (rows,).
    """
    single = objective.loss_of(label)

    def loss(target: Any, p: Any) -> Any:
        return (1.0 - teacher_weight) * single(target[:, 0], p) + teacher_weight * single(target[:, 1], p)

    return loss


def _student(teacher: Teacher, settings: exporting.DistillationSettings, how: dict[str, Any], seed: int) -> keras.Model:
    target = np.stack([teacher.label, teacher.answers()], axis=1)
    training.repeatable(seed)
    # No dropout: a student this small has nothing to spare, and its teacher's answers hold it back from noise.
    of_student = {
        "architecture": "deep",
        "hidden_units": settings.hidden_units,
        "embedding_dimensions": settings.embedding_dimensions,
        "dropout": 0.0,
    }
    student = architectures.build(of_student, Trend.fit(teacher.inputs, teacher.labels, holidays.priors(how)))
    training.fit(student, teacher.inputs, target, how, seed, loss_of(teacher.label, settings.teacher_weight))
    return student


class _InEightBits(keras.layers.Dense):
    """A dense layer that rounds its weights and its input to eight bits, and lets gradients through.

    As LiteRT does it: weights by output channel, symmetric without −128; activations by tensor, asymmetric
    (https://ai.google.dev/edge/litert/models/quantization_spec). The range of the input is that of the batch.
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return the output; only in training are weights and input rounded, as an export rounds them later."""
        kernel = self.kernel
        if training:
            largest = ops.stop_gradient(ops.maximum(ops.max(ops.abs(kernel), axis=0), _SMALLEST))
            kernel = fake_quant_with_min_max_vars(kernel, -largest, largest, narrow_range=True, axis=1)
            low = ops.stop_gradient(ops.minimum(ops.min(inputs), -_SMALLEST))
            high = ops.stop_gradient(ops.maximum(ops.max(inputs), _SMALLEST))
            inputs = fake_quant_with_min_max_vars(inputs, low, high)
        return self.activation(ops.matmul(inputs, kernel) + self.bias)


def _in_eight_bits(layer: keras.layers.Layer) -> keras.layers.Layer:
    kind = _InEightBits if isinstance(layer, keras.layers.Dense) and layer.use_bias else layer.__class__
    return kind.from_config(layer.get_config())


def _trained_in_eight_bits(
    teacher: Teacher, _: exporting.QuantizationAwareSettings, how: dict[str, Any], seed: int
) -> keras.Model:
    training.repeatable(seed)
    model = teacher.model()
    rounding = keras.models.clone_model(model, clone_function=_in_eight_bits)
    rounding.set_weights(model.get_weights())
    training.fit(rounding, teacher.inputs, teacher.label, how, seed, objective.loss_of(teacher.label))
    model.set_weights(rounding.get_weights())
    return model
