"""Quantization-aware training: the dense layers see themselves in eight bits while they are trained further.

What comes out is an ordinary model; its weights lie where rounding them to eight bits costs little.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops
from keras.quantizers import fake_quant_with_min_max_vars

from bike_pipeline.exporting.compression.material import Teacher
from bike_pipeline.modeling import training
from bike_pipeline.settings.exporting import QuantizationAwareSettings

# A channel whose weights are all zero still needs a range.
_SMALLEST = 1e-6


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
    if isinstance(layer, keras.layers.Dense) and layer.use_bias:
        return _InEightBits.from_config(layer.get_config())
    return layer.__class__.from_config(layer.get_config())


def train(teacher: Teacher, settings: QuantizationAwareSettings, further: dict[str, Any], seed: int) -> keras.Model:
    """Return the blessed model, trained further as if its dense layers had eight bits."""
    training.repeatable(seed)
    model = teacher.model()
    rounding = keras.models.clone_model(model, clone_function=_in_eight_bits)
    rounding.set_weights(model.get_weights())
    how = {**further, "epochs": settings.epochs, "learning_rate": settings.learning_rate}
    training.fit(rounding, teacher.inputs, teacher.label, how, seed, training.loss_of(teacher.label))
    model.set_weights(rounding.get_weights())
    return model
