"""What the benchmark makes of labels that come late, and of intervals, on answers whose errors are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks import model_quality
from benchmarks.quality import later_labels, served
from benchmarks.quality.later_labels import Intervals
from benchmarks.quality.protocols import Split, Table, read, splits
from benchmarks.quality.scores import Scores
from bike_pipeline.data.embedded_dataset import embedded_bytes
from bike_pipeline.settings import load_settings

TRAINING = load_settings().training


@pytest.fixture(scope="module")
def table() -> Table:
    return read(embedded_bytes())


def test_a_model_that_is_a_third_too_low_is_put_right_by_its_labels(table: Table) -> None:
    parts = [Split(np.arange(100), np.arange(4_000, 8_000))]
    label = table["cnt"][parts[0].test]
    for late in (1, 14):
        (found,) = later_labels.fed_back(table, parts, [(label / 1.5).tolist()], TRAINING.feedback, late)
        errors = np.abs(np.asarray(found) - label)
        # Until the first labels arrive there is nothing to learn from.
        before = slice((late - 1) * 20)
        np.testing.assert_allclose(errors[before], label[before] / 3)
        assert errors[2_000:].mean() < 0.03 * label[2_000:].mean()


def test_coverage_width_and_score_are_counted(table: Table) -> None:
    rows = np.arange(3_000)
    label = table["cnt"][rows]
    low, high = label - 1.0, label + 9.0
    # One in ten is missed by 5, and some are not known.
    low[::10], high[::10] = label[::10] + 5.0, label[::10] + 15.0
    low[1::100] = np.nan
    found = later_labels.intervals(table, rows, low, high)
    share = 300 / 2_970
    assert found.coverage == pytest.approx(1 - share)
    assert found.width == pytest.approx(10.0)
    assert found.score == pytest.approx(10.0 + 20 * 5.0 * share)
    assert {"working day", "hours 0-5", "winter", "weather clear"} <= set(found.slices)
    assert "weather heavy rain or snow" not in found.slices


def test_intervals_of_held_out_errors_hold(table: Table) -> None:
    generator = np.random.default_rng(5)
    noisy = np.maximum(table["cnt"] * generator.normal(1.0, 0.3, len(table["cnt"])), 0.0)
    (split,) = splits(table, "P4")
    half = split.train[::2]
    found = later_labels.of_held_out(table, split.test, noisy[split.test], half, noisy[half], TRAINING.feedback)
    assert found.coverage == pytest.approx(0.9, abs=0.03)


def test_what_was_not_measured_or_does_not_hold_is_missed() -> None:
    assert {v.word for v in model_quality.judged_intervals("P1", None)} == {"MISSED"}
    assert model_quality.judged_intervals("P2", None) == []
    good = Intervals(0.91, 100.0, 180.0, {"winter": 0.88})
    assert {v.word for v in model_quality.judged_intervals("P1", good)} == {"goal reached"}
    narrow = Intervals(0.86, 60.0, 180.0, {"winter": 0.8})
    assert [v.word for v in model_quality.judged_intervals("P1", narrow)] == ["goal reached", "MISSED", "MISSED"]
    text = model_quality.interval_table({"P1": good, "P2": None})
    assert "winter 88.0%" in text
    assert "P2" not in text


def test_each_lateness_has_a_row_and_a_limit_and_is_no_peer(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(table: Table, split: Split, training: object, seed: int) -> served.Answers:
        label = table["cnt"][split.test]
        return served.Answers(label * 0.8, label * 0.8, 1.0)

    monkeypatch.setattr(served, "answers", answers)
    found = model_quality.run_served(table, "P1", TRAINING)
    rows = {name: every[0] for name, every in found.scores.items()}
    assert set(rows) == {model_quality.SERVED, model_quality.REQUIRED_ONLY, *map(model_quality.fed_back, (1, 7, 14))}
    assert rows[model_quality.fed_back(1)].rmse < rows[model_quality.SERVED].rmse
    assert found.intervals is not None
    judged = model_quality.judged_of("P1", rows)
    assert [v.best_peer for v in judged] == [None] * 5
    assert [v.word for v in judged[2:]] == ["goal reached"] * 3
    late = {**rows, model_quality.fed_back(1): Scores(50.0, 0, 0, 0, 0)}
    del late[model_quality.fed_back(7)]
    words = [v.word for v in model_quality.judged_of("P1", late)[2:]]
    assert words == ["MISSED", "MISSED", "goal reached"]
    assert math.isnan(model_quality.judged_of("P1", late)[3].figure)
