from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from bike_pipeline import features, progress
from bike_pipeline.modeling import naive_baseline, objective, saved_model, training
from bike_pipeline.modeling.rows import RAW_NAMES
from tests.conftest import TRAINING


@pytest.fixture
def train(few_rows, transform_graph):
    def run(rows=None, seed=7, base_model=None, **changed):
        return training.train(rows or few_rows, str(transform_graph), {**TRAINING, **changed}, seed, base_model)

    return run


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one.get_weights(), other.get_weights(), strict=True))


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(train, exported):
    again, losses = train()
    assert same(again, exported.model)
    assert losses == exported.losses
    other, _ = train(seed=8)
    assert not same(other, exported.model)


def test_training_does_not_depend_on_what_was_drawn_before(train, exported):
    np.random.default_rng().random(5)
    tf.random.uniform([3])
    assert same(train()[0], exported.model)


def test_the_loss_falls_and_the_trained_model_beats_the_mean(train, few_rows, transform_graph):
    reported = []
    with progress.listening(lambda fraction, text: reported.append((fraction, text))):
        model, losses = train(epochs=12, dropout=0.0)
    assert len(losses) == 12
    assert losses[-1] < losses[0]
    assert [fraction for fraction, _ in reported] == pytest.approx(np.arange(1, 13) / 12)
    names = [tensor.name for tensor in model.inputs]
    raw = {name: tf.constant(few_rows[name]) for name in RAW_NAMES}
    output = model(saved_model.Transform(str(transform_graph), RAW_NAMES, names)(raw), training=False)
    log_label = np.log1p(few_rows["cnt"])
    assert np.mean((output.numpy() - log_label) ** 2) < 0.5 * log_label.var()


@pytest.mark.parametrize("label", [0, 40])
def test_a_constant_label_is_learned_without_dividing_by_its_variance(train, few_rows, label):
    rows = {name: values[:200] for name, values in few_rows.items()}
    model, losses = train(rows | {"cnt": np.full(200, label)})
    assert np.isfinite(losses).all()
    assert all(np.isfinite(weights).all() for weights in model.get_weights())


@pytest.mark.parametrize("count", [1, 63, 65])
def test_any_number_of_rows_fits_into_the_batches(train, few_rows, count):
    model, losses = train({name: values[:count] for name, values in few_rows.items()})
    assert np.isfinite(losses).all()
    assert all(np.isfinite(weights).all() for weights in model.get_weights())


def test_a_warm_start_begins_from_the_served_weights(train, exported):
    # A step of no size: what comes out is what the training began from.
    still = {"epochs": 1, "learning_rate": 1e-12, "weight_decay": 0.0}
    warm, _ = train(base_model=str(exported.path), warm_start=True, seed=99, **still)
    for got, served in zip(warm.get_weights(), exported.model.get_weights(), strict=True):
        np.testing.assert_allclose(got, served, atol=1e-6)
    cold, _ = train(base_model=str(exported.path), warm_start=False, seed=99, **still)
    assert not np.allclose(cold.get_weights()[0], exported.model.get_weights()[0], atol=1e-3)


@pytest.mark.parametrize(
    ("changed", "known"), [({"hidden_units": [9]}, True), ({"embedding_dimensions": 2}, True), ({}, False)]
)
def test_a_warm_start_without_a_fitting_model_is_a_start_from_the_beginning(train, exported, tmp_path, changed, known):
    base_model = str(exported.path if known else tmp_path)
    warm, _ = train(base_model=base_model, warm_start=True, **changed)
    cold, _ = train(**changed)
    assert same(warm, cold)


def test_a_warm_start_before_the_first_push_is_a_start_from_the_beginning(train, exported):
    assert same(train(base_model=None, warm_start=True)[0], exported.model)


def test_it_learns_what_the_hour_and_the_working_day_do_not_say(train, embedded_rows, transform_graph):
    taken = {name: values[::17] for name, values in embedded_rows.items()}
    # Demand that follows the temperature, another in rain, and the hour not at all.
    taken["cnt"] = np.round(20 + 300 * taken["temp"] * np.where(taken["weathersit"] > 1, 0.5, 1)).astype(np.int64)
    learnt = np.arange(len(taken["cnt"])) % 4 > 0
    rows, unseen = ({name: values[mask] for name, values in taken.items()} for mask in (learnt, ~learnt))
    model, _ = train(rows, epochs=25, hidden_units=[16], learning_rate=0.02)
    mean = naive_baseline.NaiveBaseline.fit(rows["hr"], rows["workingday"], rows["cnt"])
    names = [tensor.name for tensor in model.inputs]
    raw = {name: tf.constant(unseen[name]) for name in RAW_NAMES}
    inputs = saved_model.Transform(str(transform_graph), RAW_NAMES, names)(raw)
    error = np.abs(np.expm1(model(inputs, training=False).numpy()) - unseen["cnt"]).mean()
    naive = min(mean.errors(unseen["hr"], unseen["workingday"], unseen["cnt"]).values()) / len(unseen["cnt"])
    assert error < 0.4 * naive


@pytest.mark.parametrize("architecture", ["linear", "deep", "trees", "blend"])
def test_a_city_with_a_hundred_times_the_rentals_is_answered_in_its_own_numbers(
    train, few_rows, transform_graph, architecture
):
    answers = []
    for factor in (1, 100):
        rows = few_rows | {name: few_rows[name] * factor for name in features.LABELS}
        model, _ = train(rows, architecture=architecture, epochs=12, tree_rounds=60)
        given = training.transformed(rows, str(transform_graph))
        logarithms = model({tensor.name: given[tensor.name] for tensor in model.inputs}, training=False)
        answers.append(np.expm1(logarithms) / factor)
    small, large = answers
    assert large.max() * 100 > 2 * np.exp(objective.LARGEST_LOG)
    assert large.mean() == pytest.approx(small.mean(), rel=0.1)
    assert large.max() == pytest.approx(small.max(), rel=0.3)
