"""The model families by name (`training.architecture`), one module each.

Each is made of operations that every export format has. It answers log(1 + rentals), (batch,), or what the target makes
of that, such as log odds; the exported signatures turn it into what clients get.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy.typing as npt
from keras import layers

from bike_pipeline.modeling.architectures import blend, deep, linear, trees
from bike_pipeline.modeling.targets import RENTALS, Target
from bike_pipeline.modeling.trend import Trend

# From the settings' section `training` and the trend of the training rows to the untrained network.
Builder = Callable[[Mapping[str, Any], Trend], keras.Model]
BUILDERS: dict[str, Builder] = {"linear": linear.build, "deep": deep.build, "blend": deep.build}
TREES, BLEND = "trees", "blend"


def build(training: Mapping[str, Any], trend: Trend, target: Target = RENTALS) -> keras.Model:
    """Return the untrained network that the settings' section `training` names, of transformed features.

    `trees` has none.
    """
    return target.head(BUILDERS[training["architecture"]](training, trend))


def with_trees(
    network: keras.Model | None,
    training: Mapping[str, Any],
    trend: Trend,
    inputs: Mapping[str, npt.NDArray[Any]],
    label: npt.NDArray[Any],
    seed: int,
    target: Target = RENTALS,
) -> keras.Model:
    """Return the model of a trained network and of trees, which are fitted here if the architecture has any.

    Args:
        network: what `build` returned; None of `trees`.
        training: the settings' section of that name.
        trend: that of the training rows.
        inputs: their transformed features, (rows, …) each.
        label: their rentals, (rows,).
        seed: of the rows and columns that each tree sees.
        target: what is answered of the rentals.
    """
    if training["architecture"] not in (TREES, BLEND):
        return network
    forest = trees.fit(training, trend, inputs, label, seed, target)
    return trees.build(forest, trend, target) if network is None else blend.build(network, forest, trend, target)


def with_heads(model: keras.Model) -> keras.Model:
    """Return the model to train: it answers as the model does, and behind that as its heads, (batch, 1 + heads).

    Layers and weights are the model's own. An architecture without heads is trained as it is.
    """
    if deep.HEADS not in {layer.name for layer in model.layers}:
        return model
    answer = layers.Reshape((1,))(model.output)
    return keras.Model(model.inputs, layers.Concatenate()([answer, model.get_layer(deep.HEADS).output]))
