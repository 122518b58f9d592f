from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bike_pipeline import features
from bike_pipeline.modeling import preprocessing, saved_model
from tests.conftest import analyzed

OUTPUTS = (preprocessing.DENSE, preprocessing.MONTHS_BEFORE_END)


@pytest.mark.slow
def test_the_numbers_do_not_depend_on_how_the_rows_come_in_batches(few_rows, transform_graph, tmp_path):
    # Beam tunes the size of batches by the time they take: no two runs need see the same.
    graphs = [analyzed(few_rows, tmp_path / str(size), size) for size in (7, 250)]
    raw = {name: tf.constant(few_rows[name]) for name in (*features.INPUT_NAMES, features.LABEL)}
    first, *others = (saved_model.Transform(str(graph), raw, OUTPUTS)(raw) for graph in (transform_graph, *graphs))
    for other in others:
        for name in OUTPUTS:
            assert np.array_equal(first[name], other[name]), name
    weather = np.stack([few_rows[name].astype(np.float64) for name in preprocessing.WEATHER], axis=1)
    z_scores = np.clip((weather - weather.mean(0)) / weather.std(0), -preprocessing.Z_LIMIT, preprocessing.Z_LIMIT)
    np.testing.assert_allclose(first[preprocessing.DENSE][:, : len(preprocessing.WEATHER)], z_scores, atol=2e-6)
