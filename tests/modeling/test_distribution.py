from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from bike_pipeline.errors import ConfigurationError
from bike_pipeline.modeling import distribution, training
from tests.conftest import ROOT, TRAINING


@pytest.mark.slow
def test_three_devices_train_the_model_of_one(exported, few_rows, transform_graph, tmp_path):
    # 64 rows over three devices: parts of 21, 22 and 21, with dropout and L2 terms as in one.
    np.savez(tmp_path / "rows.npz", **few_rows)
    arguments = [tmp_path / "rows.npz", transform_graph, json.dumps(TRAINING), tmp_path / "weights.npz"]
    script = ROOT / "tests" / "modeling" / "mirrored_process.py"
    done = subprocess.run(
        [sys.executable, script, *map(str, arguments)], cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    weights = np.load(tmp_path / "weights.npz")
    np.testing.assert_allclose(weights["losses"], exported.losses, rtol=1e-5)
    for index, alone in enumerate(exported.model.get_weights()):
        np.testing.assert_allclose(weights[f"arr_{index}"], alone, rtol=1e-4, atol=1e-6)


def test_mirroring_on_one_device_is_refused():
    with pytest.raises(ConfigurationError, match=r"at least two devices, and this machine has one \(CPU:0\)"):
        distribution.mirrored()


def test_fewer_rows_than_replicas_are_refused():
    class TwoReplicas:
        num_replicas_in_sync = 2

    with pytest.raises(ConfigurationError, match="steps of 1 rows cannot be split over 2 replicas"):
        distribution.step_of_replicas(TwoReplicas(), None, None, None, {}, tf.ones(1), 1)


def test_one_replica_of_a_strategy_trains_as_no_strategy_does(exported, few_rows, transform_graph):
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    model, losses = training.train(few_rows, str(transform_graph), TRAINING, 7, strategy=strategy)
    np.testing.assert_allclose(losses, exported.losses, rtol=1e-6)
    for got, alone in zip(model.get_weights(), exported.model.get_weights(), strict=True):
        np.testing.assert_allclose(got, alone, rtol=1e-5, atol=1e-7)


def test_the_orders_of_rows_are_seeded_and_whole():
    first, second = distribution.row_orders(10, 4, 2, seed=3)
    assert first.shape == second.shape == (12,)
    assert sorted(first[:10]) == sorted(second[:10]) == list(range(10))
    assert list(first[10:]) == list(first[:2])
    assert not np.array_equal(first, second)
    assert np.array_equal(next(distribution.row_orders(10, 4, 2, seed=3)), first)
    assert not np.array_equal(next(distribution.row_orders(10, 4, 2, seed=4)), first)
