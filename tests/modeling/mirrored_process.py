"""Train over three logical CPU devices: they must be made before TensorFlow does anything, so in a process of its own.

Arguments: a file of rows (npz), the transform graph, a file of settings (JSON), and the file for weights and losses.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import tensorflow as tf

from bike_pipeline.modeling import distribution, training

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 3)
rows, graph, settings, output = sys.argv[1:]
strategy = distribution.mirrored()
assert strategy.num_replicas_in_sync == 3
model, losses = training.train(dict(np.load(rows)), graph, json.loads(settings), 7, strategy=strategy)
np.savez(output, *model.get_weights(), losses=losses)
