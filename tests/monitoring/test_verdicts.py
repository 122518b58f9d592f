"""From measurements to verdicts: effect first, then significance, then persistence."""

from datetime import datetime, timedelta

import numpy as np
import pytest

from bike_pipeline.monitoring.verdicts import Measurement, decide
from bike_pipeline.settings.monitoring import DecisionSettings

FIRST = datetime(2012, 1, 1)
SETTINGS = DecisionSettings()


def measured(day, effect=1.0, p_value=1e-6, subject="temp", rows=100, reference_rows=1000, reason="moved"):
    first = FIRST + timedelta(days=day)
    last = first + timedelta(hours=23)
    return Measurement(
        "shift", "data drift", subject, first, last, "2011", rows, reference_rows, effect, "°C", 0.5, p_value, reason
    )


def test_what_holds_in_two_of_three_windows_has_changed():
    (verdict,) = decide([measured(0, effect=0.1), measured(1), measured(2)], SETTINGS)
    assert verdict.status == "changed"
    assert verdict.data["windows"] == [False, True, True]
    assert verdict.meta == {
        "detector": "shift",
        "kind": "data drift",
        "subject": "temp",
        "first": datetime(2012, 1, 3),
        "last": datetime(2012, 1, 3, 23),
        "reference": "2011",
    }


def test_one_window_alone_is_told_and_starts_nothing():
    (verdict,) = decide([measured(0, effect=0.1), measured(1, effect=0.1), measured(2)], SETTINGS)
    assert verdict.status == "fine"
    assert verdict.data["reason"] == "moved; in 1 of 3 windows so far"


def test_a_small_effect_is_fine_however_significant():
    (verdict,) = decide([measured(day, effect=0.49, p_value=1e-300) for day in range(3)], SETTINGS)
    assert verdict.status == "fine"


def test_a_fall_is_a_change_as_a_rise_is():
    (verdict,) = decide([measured(day, effect=-1.0) for day in range(3)], SETTINGS)
    assert verdict.status == "changed"


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"rows": 23}, "23 rows, of 24"),
        ({"reference_rows": 0}, "the reference has 0 rows"),
        ({"effect": None, "reason": "no such column"}, "no such column"),
        ({"effect": np.nan, "reason": ""}, "no number"),
        ({"p_value": np.nan, "reason": ""}, "no number"),
    ],
)
def test_what_cannot_be_judged_is_never_fine(broken, reason):
    (verdict,) = decide([measured(0), measured(1), measured(2, **broken)], SETTINGS)
    assert verdict.status == "not judged"
    assert reason in verdict.data["reason"]
    assert verdict.data["windows"] == [True, True, None]


def test_accidents_among_many_subjects_are_no_changes():
    draws = np.random.default_rng(7).uniform(size=(40, 200))
    told = 0
    for run in draws:
        many = [measured(day, p_value=p, subject=f"feature {i}") for i, p in enumerate(run) for day in (0, 1, 2)]
        told += sum(verdict.status == "changed" for verdict in decide(many, SETTINGS))
    # Uncorrected, one subject in twenty of 8,000 would be.
    assert told <= 3


def test_what_is_certain_needs_no_significance():
    (verdict,) = decide([measured(day, p_value=None) for day in range(3)], SETTINGS)
    assert verdict.status == "changed"
    assert verdict.data["adjusted_p_value"] is None


def test_more_windows_than_there_are_cannot_be_asked_for():
    with pytest.raises(ValueError, match="persistent_windows"):
        DecisionSettings(windows=2, persistent_windows=3)
