"""A committee's suggestions on real hours: of many kinds, repeatable, and worth more than what it agrees on."""

from __future__ import annotations

import numpy as np
import pytest

from bike_pipeline import features
from bike_pipeline.modeling import label_suggestion, objective
from tests.conftest import TRAINING

COUNT = 24


def part(rows, places):
    return {name: values[places] for name, values in rows.items()}


def without_labels(rows):
    return {name: values for name, values in rows.items() if name not in features.LABELS}


@pytest.fixture(scope="module")
def labelled(embedded_rows):
    return part(embedded_rows, np.arange(0, 8_600, 17))


@pytest.fixture(scope="module")
def candidates(embedded_rows):
    """Two months that begin where the labelled rows end: hour follows hour."""
    return without_labels(part(embedded_rows, np.arange(8_645, 10_100)))


@pytest.fixture(scope="module")
def suggestion(labelled, candidates):
    return label_suggestion.suggest(labelled, candidates, COUNT, TRAINING, 7)


def test_hours_on_which_the_committee_disagrees_are_suggested_the_most_telling_first(suggestion, candidates):
    rows = len(candidates["hr"])
    assert suggestion.rentals.shape == (label_suggestion.MEMBERS, rows)
    assert suggestion.score.shape == (rows,)
    chosen = suggestion.score[suggestion.chosen]
    assert len(set(suggestion.chosen)) == COUNT
    assert (np.diff(chosen) <= 0).all()
    shortest = np.sort(suggestion.score)[::-1][label_suggestion.SHORTLIST * COUNT - 1]
    assert chosen.min() >= shortest > np.median(suggestion.score) * 0.9
    assert (suggestion.rentals >= 0).all()
    spread = suggestion.rentals.std(axis=0)
    assert spread[suggestion.chosen].mean() > spread.mean()


def test_the_suggestion_is_not_many_neighbours_of_one_hour(suggestion, candidates):
    hours = candidates["hr"][suggestion.chosen]
    best = np.argsort(-suggestion.score)[:COUNT]
    neighbours = {name: int((np.diff(np.sort(places)) == 1).sum()) for name, places in
                  (("chosen", suggestion.chosen), ("best", best))}  # fmt: skip
    assert neighbours["chosen"] <= 2 < neighbours["best"]
    assert len(set(hours)) > len(set(candidates["hr"][best]))


def test_the_same_seed_suggests_the_same_and_another_seed_something_else(suggestion, labelled, candidates):
    again = label_suggestion.suggest(labelled, candidates, COUNT, TRAINING, 7)
    assert again.chosen.tolist() == suggestion.chosen.tolist()
    assert again.score.tobytes() == suggestion.score.tobytes()
    other = label_suggestion.suggest(labelled, candidates, COUNT, TRAINING, 8)
    assert set(other.chosen) != set(suggestion.chosen)


def test_labels_of_candidates_are_not_looked_at(suggestion, labelled, candidates):
    wrong = {name: np.full(len(candidates["hr"]), 900.0, np.float32) for name in features.LABELS}
    told = label_suggestion.suggest(labelled, {**candidates, **wrong}, COUNT, TRAINING, 7)
    assert told.score.tobytes() == suggestion.score.tobytes()


def test_of_few_candidates_all_are_suggested_and_of_equal_ones_as_many_as_are_wanted(labelled, candidates):
    few = label_suggestion.suggest(labelled, part(candidates, np.arange(5)), COUNT, TRAINING, 7)
    assert sorted(few.chosen) == list(range(5))
    equal = label_suggestion.suggest(labelled, part(candidates, np.zeros(60, int)), COUNT, TRAINING, 7)
    assert len(set(equal.chosen)) == COUNT


def test_disagreement_is_measured_in_what_it_costs_the_training_loss():
    generator = np.random.default_rng(3)
    labels = generator.poisson(180, 4000).astype(np.float64) * generator.random(4000)
    variance, mean = np.log1p(labels).var(), labels.mean()
    loss, step = objective.loss_of(labels), 0.02
    for rentals in (3.0, 90.0, 700.0):
        best = np.log1p(rentals)
        # The Poisson term is least where exp(p) is the label, the other where it is one more.
        costs = [
            float(loss(np.array([rentals]), np.array([best + d])) - loss(np.array([rentals]), np.array([best])))
            for d in (step, -step)
        ]
        low, high = label_suggestion._in_units_of_loss(np.array([best - step, best + step]), variance, mean) / 2
        assert sum(costs) == pytest.approx((high - low) ** 2, rel=0.02)
