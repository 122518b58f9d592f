"""The task one hour ahead: what is answered to an hour comes of labels before it alone, and is scored as it says."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import model_quality
from benchmarks.quality import columns, hour_ahead, peers, served
from benchmarks.quality.hour_ahead import QuantileScores
from benchmarks.quality.later_labels import Intervals
from benchmarks.quality.protocols import HOUR_AHEAD, QUANTILES, Array, Split, Table, read, splits
from benchmarks.quality.scores import Scores
from bike_pipeline import features
from bike_pipeline.data.embedded_dataset import embedded_bytes
from bike_pipeline.settings import load_settings

TRAINING = load_settings().training
ROWS = np.arange(4_000, 6_000)
LATER = 1_203


@pytest.fixture(scope="module")
def table() -> Table:
    return read(embedded_bytes())


def changed(table: Table, from_row: int) -> Table:
    """Return the table with other labels from a row on."""
    labels = {name: table[name].copy() for name in (features.LABEL, *features.LEAKS)}
    for values in labels.values():
        values[from_row:] = values[from_row:][::-1] * 3.0 + 5.0
    return {**table, **labels}


def test_the_served_model_answers_an_hour_by_labels_before_it_alone(table: Table) -> None:
    expected = (table["cnt"][ROWS] * 0.7 + 20.0).tolist()
    found = hour_ahead.answers(table, ROWS, expected, TRAINING.feedback)
    again = hour_ahead.answers(changed(table, ROWS[LATER]), ROWS, expected, TRAINING.feedback)
    for one, other in zip(found, again, strict=True):
        # The hour whose label is the first to differ is answered as before.
        assert np.array_equal(one.rentals[: LATER + 1], other.rentals[: LATER + 1])
        assert np.array_equal(one.quantiles[: LATER + 1], other.quantiles[: LATER + 1], equal_nan=True)
    assert found[0].rentals[LATER + 1] == again[0].rentals[LATER + 1]
    assert found[1].rentals[LATER + 1] != again[1].rentals[LATER + 1]


def test_the_last_day_helps_where_what_is_off_lasts_for_hours(table: Table) -> None:
    label = table["cnt"][ROWS]
    generator = np.random.default_rng(3)
    # Half a day too high or too low by a third, which no day before tells.
    factor = np.repeat(generator.choice([0.75, 1.33], len(ROWS) // 12 + 1), 12)[: len(ROWS)]
    by_days, last_day = hour_ahead.answers(table, ROWS, (label * factor).tolist(), TRAINING.feedback)
    error = np.abs(by_days.rentals - label).mean(), np.abs(last_day.rentals - label).mean()
    assert error[1] < 0.75 * error[0]


def test_the_columns_of_the_last_day_are_those_of_the_hours_before(table: Table) -> None:
    lags, level = columns.last_day(table)
    # On 2011-01-02 the hour 5 is absent: row 29 is 06:00.
    assert math.isnan(lags["rentals_1h_ago"][29])
    assert lags["rentals_2h_ago"][29] == table["cnt"][28]
    day = slice(2_000 - 24, 2_000)
    assert table["dteday"][2_000] * 24 + table["hr"][2_000] - table["dteday"][1_976] * 24 - table["hr"][1_976] == 24
    assert lags["rentals_24h_ago"][2_000] == table["cnt"][1_976]
    assert level[2_000] == pytest.approx(1.0 + table["cnt"][day].mean())
    later, later_level = columns.last_day(changed(table, 9_000))
    assert np.array_equal(later_level[:9_001], level[:9_001])
    for name, values in later.items():
        assert np.array_equal(values[:9_001], lags[name][:9_001], equal_nan=True), name
    assert later["rentals_1h_ago"][9_001] != lags["rentals_1h_ago"][9_001]


class _Linear:
    """Least squares with gaps as zeros, in place of a library of trees."""

    def __init__(self, offset: float = 0.0) -> None:
        self._offset = offset

    def fit(self, matrix: Array, label: Array) -> None:
        self._weights = np.linalg.lstsq(np.nan_to_num(matrix), label, rcond=None)[0]

    def predict(self, matrix: Array) -> Array:
        found: Array = np.nan_to_num(matrix) @ self._weights + self._offset
        return found


@pytest.mark.parametrize("recipe", peers.HOUR_AHEAD_RECIPES)
def test_a_peer_answers_an_hour_by_labels_before_it_alone(table: Table, recipe: str) -> None:
    split = Split(np.arange(3_000), np.arange(3_000, 4_000))
    one, other = peers.Bench(table), peers.Bench(changed(table, 3_400))
    found = one.answers(lambda log, seed: _Linear(), recipe, split)
    again = other.answers(lambda log, seed: _Linear(), recipe, split)
    assert np.array_equal(found[:401], again[:401])
    assert not np.array_equal(found[401:450], again[401:450])
    quantiles = one.quantiles(lambda level, seed: _Linear(0.1 * (0.5 - level)), recipe, split)
    assert quantiles.shape == (1_000, len(QUANTILES))
    assert (np.diff(quantiles, axis=1) >= 0).all()


def test_peers_choose_among_recipes_of_the_last_day_and_answer_quantiles(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "MAKERS", {"least squares": lambda log, seed: _Linear()})
    monkeypatch.setattr(peers, "QUANTILE_MAKERS", {"least squares": lambda level, seed: _Linear(level)})
    (found,) = peers.run(table, HOUR_AHEAD)
    assert set(found["inner"]) == set(peers.HOUR_AHEAD_RECIPES)
    assert found["recipe"] == min(found["inner"], key=found["inner"].get)
    (split,) = splits(table, HOUR_AHEAD)
    assert np.shape(found["quantiles"]) == (len(split.test), len(QUANTILES))
    assert len(found["answers"][0]) == len(split.test)


def test_quantiles_are_scored_by_the_pinball_loss(table: Table) -> None:
    rows = np.arange(500)
    label = table["cnt"][rows]
    quantiles = np.column_stack([label - 10.0, label - 5.0, label, label + 5.0, label + 10.0])
    quantiles[0] = np.nan
    found = hour_ahead.quantile_scores(table, rows, quantiles, np.isfinite(quantiles[:, 0]))
    assert found.pinball == pytest.approx((0.05 * 10 + 0.1 * 5 + 0 + 0.1 * 5 + 0.05 * 10) / 5)
    assert (found.intervals.coverage, found.intervals.width) == (1.0, pytest.approx(20.0))


def intervals(coverage: float, score: float) -> Intervals:
    return Intervals(coverage, 100.0, score, {})


def test_quantiles_pass_where_no_peer_has_better_ones_and_they_hold() -> None:
    own, peer = QuantileScores(9.0, intervals(0.91, 180.0)), QuantileScores(9.5, intervals(0.7, 170.0))
    both = {model_quality.LAST_DAY: own, "LightGBM": peer}
    assert [v.word for v in model_quality.judged_quantiles(both)] == ["reached", "MISSED", "goal reached"]
    # Rows of the served model are no peers, and what was not measured does not pass.
    other = {model_quality.fed_back(1): own}
    assert {v.word for v in model_quality.judged_quantiles(other)} == {"MISSED"}
    assert {v.word for v in model_quality.judged_quantiles({"LightGBM": peer})} == {"MISSED"}
    lines = model_quality.quantile_table(both).splitlines()
    assert lines[1].startswith(model_quality.LAST_DAY)
    assert "70.0%" in lines[2]


def test_all_contestants_are_scored_on_the_rows_that_all_have_quantiles_of(table: Table) -> None:
    (split,) = splits(table, HOUR_AHEAD)
    label = table["cnt"][split.test]
    steady = np.repeat(label[:, None], len(QUANTILES), axis=1)
    late, off = steady.copy(), steady.copy()
    late[:2_000], off[:2_000] = np.nan, 0.0
    found = model_quality.scores_of_quantiles(table, {"late": late, "off at first": off})
    assert {name: one.pinball for name, one in found.items()} == {"late": 0.0, "off at first": 0.0}
    assert model_quality.scores_of_quantiles(table, {}) == {}


def test_the_row_that_knows_the_last_day_is_held_against_the_peers(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers(table: Table, split: Split, training: Any, seed: int) -> Any:
        label = table["cnt"][split.test]
        return SimpleNamespace(rentals=label * 0.8, without_optional=label * 0.5, seconds=1.0)

    monkeypatch.setattr(served, "answers", answers)
    found = model_quality.run_served(table, HOUR_AHEAD, TRAINING)
    rows = {name: every[0] for name, every in found.scores.items()}
    assert set(found.quantiles) == {model_quality.fed_back(1), model_quality.LAST_DAY}
    assert len(found.scores[model_quality.LAST_DAY]) == len(model_quality.SEEDS)
    figure = rows[model_quality.LAST_DAY].rmse
    better, worse = Scores(figure + 1, 0, 9.0, 0, 0), Scores(figure - 1, 0, 9.0, 0, 0)
    assert model_quality.judged_of(HOUR_AHEAD, {**rows, "a tree": better})[0].word == "reached"
    assert model_quality.judged_of(HOUR_AHEAD, {**rows, "a tree": worse})[0].word == "MISSED"
