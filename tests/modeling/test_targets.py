"""Another target through the same code: what is learnt, served and stored of `busy`, and what holds for all."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from bike_pipeline import features
from bike_pipeline.components.example_shards import encode
from bike_pipeline.errors import BaselineError, DataError, ModelError
from bike_pipeline.modeling import evaluation, saved_model, target_choice, targets, training
from bike_pipeline.modeling.golden import are_sound, with_broken_rows
from bike_pipeline.modeling.loaded_model import LoadedModel
from bike_pipeline.modeling.naive_baseline import NaiveBaseline
from bike_pipeline.modeling.targets import RENTALS, Busy
from bike_pipeline.settings.training import TargetName
from tests.conftest import TRAINING

SECTION = {**TRAINING, "target": "busy"}
NAMES = [feature.name for feature in features.MODEL_INPUTS]


@pytest.fixture(scope="module")
def served(busy_model):
    return tf.saved_model.load(str(busy_model.path))


def test_every_target_has_a_name_in_the_settings_and_says_what_it_answers():
    assert set(targets.KINDS) == set(TargetName.__args__) == set(features.ANSWERS)
    for kind in targets.KINDS.values():
        assert set(features.ANSWERS[kind.name].metrics) == set(kind.formulas)
        assert set(kind.ratios) <= set(kind.formulas)
        assert all(1 <= place <= 3 for place, _ in kind.ratios.values())


def test_the_hash_of_what_is_measured_of_rentals_is_the_released_one_and_no_other_targets():
    assert evaluation.metric_set() == evaluation.metric_set(targets.Target) != evaluation.metric_set(Busy)


def test_an_hour_is_busy_above_the_quantile_of_the_training_rows(few_rows):
    found = Busy.fit(SECTION, few_rows["cnt"])
    assert found.above == np.quantile(few_rows["cnt"], 0.75, method="lower")
    assert found.label(few_rows["cnt"]).mean() == pytest.approx(0.25, abs=0.01)
    assert Busy.fit({**SECTION, "busy_above": 100}, few_rows["cnt"]).above == 100


@pytest.mark.parametrize("above", [10_000, None])
def test_where_there_is_nothing_to_tell_it_says_so(above):
    with pytest.raises(DataError, match="no training hour") as caught:
        Busy.fit({**SECTION, "busy_above": above}, np.full(50, 7))
    assert "training.busy_above" in caught.value.fix


def test_the_threshold_is_chosen_on_the_last_fifth_by_a_model_that_has_not_seen_it(
    few_rows, transform_graph, monkeypatch
):
    seen = {}
    fit = training.train_transformed

    def spy(columns, *args, **kwargs):
        seen["rows"], seen["last"] = len(columns["cnt"]), columns["days_before_end"].min()
        return fit(columns, *args, **kwargs)

    monkeypatch.setattr(training, "train_transformed", spy)
    linear = {**SECTION, "architecture": "linear"}
    target = target_choice.target_of(few_rows, str(transform_graph), linear, seed=7)
    assert target.chosen_on == len(few_rows["cnt"]) // 5
    assert seen == {"rows": len(few_rows["cnt"]) - target.chosen_on, "last": 0}
    assert 0 < target.threshold < 1
    before, after = target_choice._in_time(training.transformed(few_rows, str(transform_graph)))
    # As hours after training are: at its end.
    assert (after["days_before_end"] == 0).all()
    assert (after["plain"][:, -1] == 0).all()
    assert before["days_before_end"].max() > 500


def test_rentals_choose_nothing_and_write_no_file(few_rows, transform_graph, exported):
    assert target_choice.target_of(few_rows, str(transform_graph), TRAINING, seed=7) is not None
    assert not (exported.path / saved_model.EXTRA_FOLDER / targets.FILE).exists()
    assert saved_model.target_of(str(exported.path)) == RENTALS


@pytest.mark.parametrize("architecture", ["linear", "deep", "trees", "blend"])
def test_every_architecture_learns_to_tell_busy_hours(few_rows, transform_graph, architecture):
    section = {**SECTION, "architecture": architecture, "epochs": 25, "tree_rounds": 20}
    target = Busy.fit(section, few_rows["cnt"])
    columns = training.transformed(few_rows, str(transform_graph))
    model, _ = training.train_transformed(columns, section, 7, target=target)
    p = target.served(model({t.name: columns[t.name] for t in model.inputs}, training=False)).numpy()
    found = target.metrics_of(target.terms_of(few_rows["cnt"], p).sum(axis=1))
    share = target.label(few_rows["cnt"]).mean()
    assert found["log_loss"] < 0.75 * target.naive_error(target.label(few_rows["cnt"]), share).mean()
    assert found["auc"] > 0.9


def test_every_signature_answers_the_same_probability(served, busy_model):
    rows = {name: busy_model.rows[name][::15] for name in NAMES}
    p = LoadedModel(busy_model.path).predict(rows)
    assert ((p >= 0) & (p <= 1)).all()
    assert p.std() > 0.1
    signatures = saved_model.signature_of(str(busy_model.path))
    assert signatures["serving_default"]["outputs"] == {"busy_probability": "float32"}
    assert features.SERVING_INTERVALS not in signatures
    found = served.signatures["serving_examples"](tf.constant(examples(rows)))["busy_probability"]
    np.testing.assert_allclose(found, p, rtol=1e-5)


def examples(rows):
    return encode(pa.RecordBatch.from_pydict({name: pa.array(values) for name, values in rows.items()}))


def test_classify_names_the_decided_class_first(served, busy_model):
    rows = {name: busy_model.rows[name][:200] for name in NAMES}
    target, p = saved_model.target_of(str(busy_model.path)), LoadedModel(busy_model.path).predict(rows)
    found = served.signatures[features.SERVING_CLASSIFY](inputs=tf.constant(examples(rows)))
    called = p >= target.threshold
    assert 0 < called.sum() < len(p)
    assert (found["classes"].numpy()[:, 0] == np.where(called, b"busy", b"not busy")).all()
    assert (found["classes"].numpy()[:, 1] == np.where(called, b"not busy", b"busy")).all()
    np.testing.assert_allclose(found["scores"][:, 0], np.where(called, p, 1 - p), atol=1e-6)
    np.testing.assert_allclose(np.sum(found["scores"], axis=1), 1, atol=1e-6)


def test_a_broken_sensor_is_answered_with_nan_and_no_class(served, busy_model):
    mixed = with_broken_rows({name: busy_model.rows[name][:20] for name in NAMES})
    broken = ~are_sound(mixed)
    p = LoadedModel(busy_model.path).predict(mixed)
    assert (np.isnan(p) == broken).all()
    found = served.signatures[features.SERVING_CLASSIFY](inputs=tf.constant(examples(mixed)))
    assert np.isnan(found["scores"].numpy()[broken]).all()
    assert (found["classes"].numpy()[broken] == b"").all()
    assert (found["classes"].numpy()[~broken] != b"").all()


def test_the_classify_signature_is_made_for_classify_requests(busy_model):
    proto, _ = saved_model._proto(str(busy_model.path))
    definitions = proto.meta_graphs[0].signature_def
    assert definitions[features.SERVING_CLASSIFY].method_name == "tensorflow/serving/classify"
    assert definitions["serving_default"].method_name == "tensorflow/serving/predict"
    assert set(definitions[features.SERVING_CLASSIFY].inputs) == {"inputs"}


def test_a_target_is_read_as_it_was_written(busy_model):
    target = saved_model.target_of(str(busy_model.path))
    assert isinstance(target, Busy)
    assert targets.from_json(target.extra_files()[targets.FILE], "here") == target
    assert f"more than {target.above:g} rentals" in target.meaning
    assert json.loads(json.dumps(target.described()))["threshold"] == target.threshold


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"name": "nothing"}', '{"name": "busy"}', '{"name": "busy", "above": "x"}']
)
def test_a_damaged_target_is_one_clear_error(text):
    with pytest.raises(ModelError, match="cannot be read") as caught:
        targets.from_json(text, "there")
    assert caught.value.where == "there"


def test_another_target_is_no_baseline():
    targets.require_same("busy", "busy", "here")
    with pytest.raises(BaselineError, match="neither is the other's baseline") as caught:
        targets.require_same("rentals", "busy", "here")
    assert "serving.model_name" in caught.value.fix


def test_another_threshold_of_rentals_is_another_question():
    assert Busy(100.0, 0.3).difference_to(Busy(100.0, 0.4)) == ""
    assert "training.busy_above=90 keeps the meaning" in Busy(100.0).difference_to(Busy(90.0))


def test_a_share_is_never_certain():
    hour, working, busy = np.zeros(10, int), np.zeros(10, int), np.zeros(10)
    hour[5:], busy[5:] = 1, 1
    table = NaiveBaseline.fit(hour, working, busy, None, 1.0).table
    assert table[0, 0] == pytest.approx(0.5 / 6)
    assert table[0, 1] == pytest.approx(5.5 / 6)
    assert math.isfinite(Busy(1.0).naive_error(np.array([1.0]), table[0, :1])[0])
