"""`blend`: the mean of the deep network's answer and those of the trees, in one graph. They err in different hours."""

from __future__ import annotations

import keras
from keras import layers

from bike_pipeline.modeling.architectures import level, trees
from bike_pipeline.modeling.targets import Target
from bike_pipeline.modeling.trees import Forest
from bike_pipeline.modeling.trend import Trend

# Of the network; the ensembles have the rest between them. Chosen for rentals on eight parts of the training rows of
# four protocols (`make benchmark-quality`), each from what came before it or lay around it: from 0.5 to 0.7 for the
# network RMSE differs by 2 % and RMSLE by less.
NETWORK_SHARE = 0.6


def build(network: keras.Model, forest: Forest, trend: Trend, target: Target) -> keras.Model:
    """Return the model of a trained network, whose layers it shares, and fitted trees."""
    inputs = level.inputs_of(trees.INPUTS, trend)
    inputs |= {tensor.name: tensor for tensor in network.inputs}
    parts = [layers.Reshape((1,))(network.output), trees.answers(forest, trend, inputs, target)]
    ensembles = len(target.boosted)
    shares = (NETWORK_SHARE, *[(1.0 - NETWORK_SHARE) / ensembles] * ensembles)
    answer = target.mixed(shares, trend.largest_log, "blend")(layers.Concatenate()(parts))
    return keras.Model(inputs, answer, name="bike_demand")
