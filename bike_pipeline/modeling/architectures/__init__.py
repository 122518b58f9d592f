"""The model families by name (`training.architecture`), one module each.

Each is made of operations that every export format has. It answers log(1 + rentals), (batch,); the exported signatures
turn that into rentals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import layers

from bike_pipeline.modeling.architectures import deep, linear
from bike_pipeline.modeling.trend import Trend

# From the settings' section `training` and the trend of the training rows to the untrained network.
Builder = Callable[[Mapping[str, Any], Trend], keras.Model]
BUILDERS: dict[str, Builder] = {"linear": linear.build, "deep": deep.build}


def build(training: Mapping[str, Any], trend: Trend) -> keras.Model:
    """Return the untrained model that the settings' section `training` names, of transformed features."""
    return BUILDERS[training["architecture"]](training, trend)


def with_heads(model: keras.Model) -> keras.Model:
    """Return the model to train: it answers as the model does, and behind that as its heads, (batch, 1 + heads).

    Layers and weights are the model's own. An architecture without heads is trained as it is.
    """
    if deep.HEADS not in {layer.name for layer in model.layers}:
        return model
    answer = layers.Reshape((1,))(model.output)
    return keras.Model(model.inputs, layers.Concatenate()([answer, model.get_layer(deep.HEADS).output]))
