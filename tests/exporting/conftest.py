"""A model of the size that is served, for what a tiny one does not show."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import FEW, ROOT, TRAINING


@dataclass(frozen=True)
class FullSize:
    """A model of the served architecture, trained on few rows.

    Attributes:
        source: the model as a format exports it.
        golden: golden rows.
        answers: the SavedModel's answers to them.
        rows: raw rows that training did not see, by column, with the label.
        predicted: the SavedModel's answers to those.
    """

    source: Any
    golden: dict[str, Any]
    answers: Any
    rows: dict[str, Any]
    predicted: Any


@pytest.fixture(scope="session")
def full_size(
    embedded_rows: dict[str, Any], few_rows: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> FullSize:
    """The blend of a network and trees, of the size that the settings have, behind the graph that Transform writes."""
    import tensorflow_data_validation as tfdv

    from bike_pipeline import features
    from bike_pipeline.components.transform import write_graph_of
    from bike_pipeline.exporting.formats.base import Source
    from bike_pipeline.modeling import saved_model, training
    from bike_pipeline.modeling.golden import golden_rows
    from bike_pipeline.modeling.loaded_model import LoadedModel
    from bike_pipeline.settings import load_settings

    folder = tmp_path_factory.mktemp("full_size")
    transform_graph, path = str(folder / "graph"), folder / "model"
    write_graph_of(few_rows, tfdv.load_schema_text(str(ROOT / "configs" / "schema.pbtxt")), transform_graph)
    wanted = {**load_settings().training.model_dump(mode="json"), "architecture": "blend", "batch_size": 64}
    model, _ = training.train(few_rows, transform_graph, wanted, seed=7)
    # With what the labels of 2011 tell it, so that the formats carry a state, which moves some of 2012.
    early = {name: values[few_rows["yr"] == 0] for name, values in few_rows.items()}
    start = training.first_feedback(model, transform_graph, wanted, early)
    saved_model.write(model, transform_graph, str(path), {}, start)
    served, golden = LoadedModel(path), golden_rows(1_000)
    names = [f.name for f in features.MODEL_INPUTS]
    source = Source(path, {name: few_rows[name] for name in names}, shared=tmp_path_factory.mktemp("shared"))
    # What was trained on is known nearly by heart: there an error of eight bits is a large part of all error.
    unseen = {name: np.delete(values, np.s_[::FEW], axis=0) for name, values in embedded_rows.items()}
    predicted = served.predict({name: unseen[name] for name in names})
    return FullSize(source, golden, served.predict(golden), unseen, predicted)


@pytest.fixture(scope="session")
def linear(few_rows: dict[str, Any], transform_graph: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model of the architecture `linear`."""
    from bike_pipeline import features
    from bike_pipeline.exporting.formats.base import Source
    from bike_pipeline.modeling import saved_model, training

    model, _ = training.train(few_rows, str(transform_graph), {**TRAINING, "architecture": "linear"}, seed=7)
    path = tmp_path_factory.mktemp("linear") / "model"
    start = training.first_feedback(model, str(transform_graph), TRAINING, None)
    saved_model.write(model, str(transform_graph), str(path), {}, start)
    return Source(path, {f.name: few_rows[f.name] for f in features.MODEL_INPUTS})


@pytest.fixture(scope="session")
def hashing(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model with operators that formats lack: a string hash and an incomplete beta integral."""
    import keras
    import tensorflow as tf

    from bike_pipeline.exporting.formats.base import Source

    class Hash(keras.layers.Layer):
        def call(self, numbers):
            return tf.cast(tf.strings.to_hash_bucket_fast(tf.strings.as_string(numbers), 7), tf.float32)

    class Beta(keras.layers.Layer):
        def call(self, numbers):
            return tf.math.betainc(numbers, numbers, numbers)

    raw = keras.Input((), name="temp")
    model = keras.Model(raw, Beta(name="beta_2")(Hash(name="hash_temp")(raw)))
    path = tmp_path_factory.mktemp("hashing") / "model"
    archive = keras.export.ExportArchive()
    archive.track(model)
    spec = {"temp": tf.TensorSpec([None], tf.float32, name="temp")}
    archive.add_endpoint("serving_default", lambda columns: {"cnt": model(columns["temp"])}, [spec])
    archive.write_out(str(path), verbose=False)
    (path / "assets.extra").mkdir()
    model.save(path / "assets.extra" / "model.keras")
    return Source(path, {})
