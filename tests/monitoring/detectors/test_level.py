"""The level of the label against the answers: a shift is found, single days and holidays are none."""

import numpy as np
import pytest

from bike_pipeline.monitoring.detectors import level
from bike_pipeline.monitoring.verdicts import decide
from tests.monitoring.watching import DECISION, SETTINGS, reference, requests, windows


def verdict_of(observed, *at):
    (verdict,) = decide(level.measure(observed, reference(), windows(*at), SETTINGS), DECISION)
    return verdict


@pytest.mark.parametrize(("factor", "sign"), [(1.25, 1), (0.8, -1)])
def test_a_level_that_moved_in_april_is_found_within_three_weeks(factor, sign):
    observed = requests(last="2012-04-21")
    moved = observed["hour"] >= observed["hour"][0] + 91 * 24
    observed["label"] = np.where(moved, observed["label"] * factor, observed["label"])
    before, after = (verdict_of(observed, day, 3) for day in ("2012-03-12", "2012-04-02"))
    assert before.status == "fine"
    assert after.status == "changed"
    assert after.data["effect"] * sign > 0.1
    assert after.data["windows"][-1]


def test_a_year_of_holidays_and_storms_and_no_shift_is_fine():
    observed = requests()
    # Sandy, and Christmas.
    for first, last in ((7248, 7296), (8592, 8664)):
        bad = (observed["hour"] >= 8760 + first) & (observed["hour"] < 8760 + last)
        observed["label"] = np.where(bad, observed["label"] * 0.1, observed["label"])
    measured = [*level.measure(observed, reference(), windows("2012-01-02", 52), SETTINGS)]
    told = [decide(measured[: place + 1][-3:], DECISION)[0] for place in range(52)]
    assert [one.meta["last"].date().isoformat() for one in told if one.status == "changed"] == []


def test_a_thousand_requests_of_an_hour_are_one_hour():
    one, many = (requests("2012-02-01", "2012-02-28", a_hour=count) for count in (1, 40))
    first, second = (next(level.measure(rows, reference(), windows("2012-02-22", 1), SETTINGS)) for rows in (one, many))
    assert second.effect == pytest.approx(first.effect, abs=1e-6)
    assert second.p_value == pytest.approx(first.p_value, abs=1e-6)


def test_labels_that_wait_are_not_fine():
    observed = requests("2012-02-01", "2012-02-14")
    observed["label"] = np.full(len(observed["hour"]), np.nan)
    assert verdict_of(observed, "2012-02-01", 2).status == "not judged"


def test_the_probability_of_an_alarm_is_no_less_than_that_of_a_simulated_sum():
    rng, slack, height, days = np.random.default_rng(5), 0.25, 8.0, 56
    alarms = 0
    for z in rng.normal(size=(2000, days)):
        up = down = 0.0
        for value in z:
            up, down = max(0.0, up + value - slack), max(0.0, down - value - slack)
            if max(up, down) >= height:
                alarms += 1
                break
    assert alarms / 2000 <= level.alarm_probability(height, slack, days) <= 2 * alarms / 2000
