from __future__ import annotations

import math
from dataclasses import replace

import pytest

from bike_pipeline.modeling.evaluation import interval_decisions
from bike_pipeline.modeling.feedback_record import NO_BACKTEST, Backtest
from bike_pipeline.settings import load_settings
from bike_pipeline.settings.evaluation import IntervalLimits

SETTINGS = load_settings().evaluation
GOOD = Backtest(1_700, 25.0, 23.0, 1_650, 0.9, 0.88, 110.0, 160.0)


def words(backtest: Backtest | None) -> dict[str, tuple[bool, bool]]:
    return {d.metric: (d.binding, d.passed) for d in interval_decisions(SETTINGS, backtest)}


def test_intervals_within_the_limits_pass() -> None:
    assert words(GOOD) == {"interval_coverage": (True, True), "interval_width": (True, True)}


@pytest.mark.parametrize("coverage", [0.5, 0.99, math.nan])
def test_intervals_that_hold_too_few_or_all_labels_fail(coverage: float) -> None:
    assert words(replace(GOOD, coverage=coverage))["interval_coverage"] == (True, False)


@pytest.mark.parametrize("width", [1_000.0, math.nan])
def test_intervals_that_are_too_wide_fail(width: float) -> None:
    assert words(replace(GOOD, width=width))["interval_width"] == (True, False)


@pytest.mark.parametrize("nothing", [None, NO_BACKTEST, replace(NO_BACKTEST, rows=2_000, mae=3.0)])
def test_without_evidence_nothing_passes(nothing: Backtest | None) -> None:
    assert words(nothing) == {"interval_coverage": (True, False), "interval_width": (True, False)}


def test_few_rows_are_reported_only() -> None:
    few = replace(GOOD, rows=SETTINGS.intervals.min_rows - 1, coverage=0.1)
    assert words(few)["interval_coverage"] == (False, False)
    reason = interval_decisions(SETTINGS, few)[0].reason
    assert "interval_coverage, overall: 0.1, between 0.8 and 0.98" in reason
    assert "reported" in reason


def test_limits_the_wrong_way_round_are_refused() -> None:
    with pytest.raises(ValueError, match="below max_coverage"):
        IntervalLimits(min_coverage=0.9, max_coverage=0.9, max_width=10.0, min_rows=1)


def test_the_backtest_is_told_in_words() -> None:
    assert GOOD.reason == (
        "the interval of 90% held 88.0% of 1,650 labels and is 110 rentals wide; "
        "MAE 23.0 with each day's labels fed back, 25.0 without"
    )
    assert replace(NO_BACKTEST, rows=20, mae=3.0, mae_with_feedback=2.5).reason.startswith("no interval is known of 20")
