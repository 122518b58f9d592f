"""Every slice that training saw is judged, or named as not judged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bike_pipeline.errors import ConfigurationError
from bike_pipeline.modeling import evaluation, slices
from bike_pipeline.settings import load_settings

GOOD = {"mae": 40.0, "rmse": 60.0, "rmsle": 0.4, "bias": 0.05, "calibration": 1.05}
SLICES = {"hour_band": "0 6 10 16 20", "workingday": "0 1", "season": "1 2 3 4", "weathersit": "1 2 3 4"}
TRAINED = {slicing: dict.fromkeys(values.split(), 2000) for slicing, values in SLICES.items()}


def measured(**rows: dict[str, int]) -> dict[tuple[str, str], dict[str, float]]:
    """Return good metrics of every slice on 1,000 rows, or on the given number; on 0, of no such slice."""
    found = {("overall", ""): {**GOOD, "rows": 1700.0}}
    for slicing, values in SLICES.items():
        for value in values.split():
            if count := rows.get(slicing, {}).get(value, 1000):
                found[slicing, value] = {**GOOD, "rows": float(count)}
    return found


def named(candidate: Any, baseline: Any, *assignments: str) -> dict[tuple[str, str], evaluation.Decision]:
    """Return what is not judged, by slice."""
    settings = load_settings(assignments=assignments).evaluation
    decisions = evaluation.decide(settings, candidate, baseline, 100.0)
    found = evaluation.unjudged(settings, candidate, TRAINED, decisions)
    return {(decision.slicing, decision.slice): decision for decision in found}


def test_all_slices_are_judged_where_the_eval_split_has_the_rows() -> None:
    assert named(measured(), measured()) == {}


def test_eval_hours_that_are_missing_fail_the_candidate() -> None:
    """Train's hours 10-15 threefold, and an eval split without them: every number looks good."""
    candidate = measured(hour_band={"10": 0})
    (missing,) = named(candidate, candidate).values()
    assert (missing.binding, missing.passed) == (True, False)
    assert missing.reason.startswith("hours 10-15, 0 rows: not judged: absent from the eval split")
    allowed = named(candidate, candidate, "evaluation.may_be_missing.hour_band=[10]")
    assert [decision.binding for decision in allowed.values()] == [False]


def test_seasons_and_the_rarest_weather_may_be_missing_as_shipped() -> None:
    candidate = measured(season={"2": 0, "3": 0}, weathersit={"4": 0})
    found = named(candidate, candidate)
    assert set(found) == {("season", "2"), ("season", "3"), ("weathersit", "4")}
    assert not any(decision.binding for decision in found.values())
    lacking = measured(weathersit={"3": 0})
    assert named(lacking, lacking)["weathersit", "3"].binding


def test_small_slices_and_slices_without_a_limit_are_named() -> None:
    candidate = measured(season={"1": 262})
    found = named(candidate, candidate)
    assert list(found) == [("season", "1")]
    assert "fewer rows than the 500 of evaluation.min_rows" in found["season", "1"].reason
    # Without a baseline nothing is asked of seasons and weather.
    alone = named(candidate, None)
    assert {slicing for slicing, _ in alone} == {"season", "weathersit"}
    assert "no limit applies" in alone["weathersit", "1"].reason
    assert not any(decision.binding for decision in alone.values())


@pytest.mark.parametrize("value", ["{season: [5]}", "{hour_band: [9]}", "{overall: [1]}"])
def test_what_may_be_missing_must_be_a_slice(value: str) -> None:
    with pytest.raises(ConfigurationError, match="may_be_missing"):
        load_settings(assignments=(f"evaluation.may_be_missing={value}",))


def test_slices_of_rows_are_counted_and_come_back() -> None:
    columns = {
        "hr": np.array([0, 5, 6, 23, 23]),
        "workingday": np.array([0, 1, 1, 1, 1]),
        "season": np.array([1, 1, 4, 4, 4]),
        "weathersit": np.array([1, 1, 1, 1, 3]),
    }
    rows = slices.rows_by_slice(columns)
    assert rows["hour_band"] == {"0": 2, "6": 1, "20": 2}
    assert rows["weathersit"] == {"1": 4, "3": 1}
    assert slices.from_json(slices.to_json(rows)) == rows
    for text in ("{}", '{"rows_by_slice": {}}', '{"rows_by_slice": {"season": 3}}', "[]"):
        with pytest.raises(ValueError, match="not rows by slice"):
            slices.from_json(text)
