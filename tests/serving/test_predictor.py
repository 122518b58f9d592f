from __future__ import annotations

import shutil

import numpy as np
import pytest
import tensorflow as tf

from bike_pipeline import features
from bike_pipeline.errors import ModelError
from bike_pipeline.model_registry import ModelRegistry, layout
from bike_pipeline.modeling import loaded_model
from bike_pipeline.serving import predictor

NAMES = [feature.name for feature in features.REQUIRED_INPUTS]


@pytest.fixture
def base(exported, tmp_path):
    base = tmp_path / "bike_demand"
    ModelRegistry(base).add(exported.path, 3, {"fingerprint": layout.fingerprint(exported.path)})
    return base


def test_it_answers_what_the_served_signature_answers(base, exported, monkeypatch):
    rows = {name: exported.rows[name][:50] for name in NAMES}
    signature = tf.saved_model.load(str(exported.path)).signatures["serving_default"]
    wanted = signature(**{name: tf.constant(values) for name, values in rows.items()})[features.LABEL].numpy()
    asked = predictor.Predictor(str(base))
    assert asked.version == 3
    np.testing.assert_allclose(asked.predict(rows), wanted, rtol=1e-5)
    as_lists = {name: values.tolist() for name, values in rows.items()}
    monkeypatch.setattr(loaded_model, "_CHUNK", 7)
    np.testing.assert_allclose(asked.predict(as_lists), wanted, rtol=1e-5)


def test_the_newest_version_answers_unless_another_is_named(base, exported):
    ModelRegistry(base).add(exported.path, 21, {"fingerprint": layout.fingerprint(exported.path)})
    assert predictor.Predictor(str(base)).version == 21
    assert predictor.Predictor(str(base), 3).version == 3


def test_without_a_model_it_says_how_to_get_one(tmp_path):
    with pytest.raises(ModelError, match="no model is served") as error:
        predictor.Predictor(str(tmp_path / "nothing"))
    assert "bike-pipeline run" in str(error.value)


def test_a_version_that_is_not_there_names_those_that_are(base):
    with pytest.raises(ModelError, match="version 4 is not there") as error:
        predictor.Predictor(str(base), 4)
    assert "3" in error.value.fix


@pytest.mark.parametrize("damage", ["cut", "flipped", "absent", "no record", "broken record"])
def test_damaged_files_never_answer(base, damage):
    weights = next((base / "3" / "variables").glob("*.data-*"))
    content = weights.read_bytes()
    if damage == "cut":
        weights.write_bytes(content[:-10])
    elif damage == "flipped":
        weights.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    elif damage == "absent":
        shutil.rmtree(base / "3" / "assets.extra")
    elif damage == "no record":
        (base / "3" / layout.PUSH_FILE).unlink()
    else:
        (base / "3" / layout.PUSH_FILE).write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match="not those that were pushed"):
        predictor.Predictor(str(base))


def test_no_rows_have_no_predictions(base):
    assert predictor.Predictor(str(base)).predict({name: [] for name in NAMES}).shape == (0,)
