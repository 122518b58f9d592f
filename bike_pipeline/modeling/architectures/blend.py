"""`blend`: the mean of the deep network's rentals and those of the trees, in one graph. They err in different hours."""

from __future__ import annotations

import keras
from keras import layers

from bike_pipeline.modeling import preprocessing
from bike_pipeline.modeling.architectures import level, trees
from bike_pipeline.modeling.trees import Forest
from bike_pipeline.modeling.trend import Trend

# Of the network and of each ensemble. Chosen on eight parts of the training rows of four protocols (`make
# benchmark-quality`), each from what came before it or lay around it: from 0.5 to 0.7 for the network RMSE differs by
# 2 % and RMSLE by less.
SHARES = (0.6, 0.2, 0.2)


def build(network: keras.Model, forest: Forest, trend: Trend) -> keras.Model:
    """Return the model of a trained network, whose layers it shares, and fitted trees."""
    inputs = level.inputs_of((preprocessing.PLAIN, preprocessing.DAYS_BEFORE_END), trend)
    inputs |= {tensor.name: tensor for tensor in network.inputs}
    parts = [layers.Reshape((1,))(network.output), trees.answers(forest, trend, inputs)]
    answer = trees.LogOfMean(SHARES, name="blend")(layers.Concatenate()(parts))
    return keras.Model(inputs, answer, name="bike_demand")
