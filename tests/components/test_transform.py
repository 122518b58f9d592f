"""Transform: the graph that stock TFX writes, from rows that are read otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.components.conftest import on_beam

PREPROCESSING = "bike_pipeline.modeling.preprocessing.preprocessing_fn"


def transformed_by(
    executor: Any, examples: Any, schema: Any, folder: Path, in_memory_rows: int = 10**6
) -> dict[str, Any]:
    """Run an executor, and its graph over rows that lie in and outside the range it was made from."""
    import numpy as np
    import tensorflow as tf
    from tfx.proto import transform_pb2
    from tfx.types import standard_artifacts
    from tfx.utils import proto_utils

    from bike_pipeline import features
    from bike_pipeline.modeling import preprocessing, saved_model
    from bike_pipeline.modeling.rows import RAW_NAMES

    graph = standard_artifacts.TransformGraph()
    graph.uri = str(folder)
    splits = transform_pb2.SplitsConfig(analyze=["history", "train"], transform=["eval"])
    executor.Do(
        {"examples": [examples], "schema": [schema]},
        {"transform_graph": [graph]},
        {
            "preprocessing_fn": PREPROCESSING,
            "splits_config": proto_utils.proto_to_json(splits),
            "disable_statistics": 1,
            "force_tf_compat_v1": 0,
            "custom_config": json.dumps(None),
            "in_memory_rows": in_memory_rows,
        },
    )
    outputs = preprocessing.OUTPUTS
    steps = np.linspace(0, 1, 50)
    raw = {
        f"{name}": tf.constant(
            steps.astype(np.float32) if features.BY_NAME[name].kind == "float" else np.rint(steps * 12).astype(np.int64)
        )
        for name in RAW_NAMES
    }
    applied = saved_model.Transform(str(folder), RAW_NAMES, outputs)(raw)
    return {name: tensor.numpy() for name, tensor in applied.items()}


@pytest.mark.slow
@pytest.mark.parametrize("in_memory_rows", [1, 10**6])
def test_the_graph_is_that_of_stock_tfx(examples: Any, schema: Any, tmp_path: Path, in_memory_rows: int) -> None:
    import numpy as np
    import tensorflow_transform as tft
    from tfx.components.transform import executor as stock

    from bike_pipeline.components.transform import TransformExecutor

    ours = transformed_by(TransformExecutor(on_beam()), examples, schema, tmp_path / "ours", in_memory_rows)
    theirs = transformed_by(stock.Executor(on_beam()), examples, schema, tmp_path / "stock")
    assert ours.keys() == theirs.keys()
    for name, values in theirs.items():
        np.testing.assert_array_equal(ours[name], values)
    for kind in ("raw_metadata", "transformed_metadata"):
        schemas = [getattr(tft.TFTransformOutput(str(tmp_path / by)), kind).schema for by in ("ours", "stock")]
        assert schemas[0] == schemas[1]
    assert {path.name for path in (tmp_path / "ours").iterdir()} == {"metadata", "transformed_metadata", "transform_fn"}
