"""Distances between distributions: agreed with scipy's, no accident of how many rows there are."""

import numpy as np
import pytest
from scipy import stats

from bike_pipeline.monitoring.columns import physical, rows_in, take
from bike_pipeline.monitoring.detectors import distributions
from bike_pipeline.monitoring.verdicts import decide
from tests.monitoring.watching import DECISION, SETTINGS, reference, requests, windows


def by_name(measured):
    return {(one.detector, one.subject): one for one in measured}


def test_distances_are_those_of_scipy():
    window = windows("2012-05-07", 1)[0]
    observed = requests("2012-05-07", "2012-05-13")
    measured = by_name(distributions.measure(observed, reference(), [window], SETTINGS))
    then = reference().of(window).columns
    now = rows_in(observed, window)
    for name in distributions.WEATHER:
        both = physical(name, now[name]), physical(name, then[name])
        # Days count once each, and a bin is a 48th of the range.
        width = np.ptp(np.concatenate(both)) / distributions.BINS
        assert measured["wasserstein", name].effect == pytest.approx(stats.wasserstein_distance(*both), abs=width)
        assert measured["kolmogorov_smirnov", name].effect == pytest.approx(stats.ks_2samp(*both).statistic, abs=0.06)
    assert measured["wasserstein", "temp"].unit == "°C"


def test_how_many_rows_there_are_says_nothing():
    window = windows("2012-05-07", 1)
    one, many = (requests("2012-05-07", "2012-05-13", a_hour=count) for count in (1, 50))
    first, second = (by_name(distributions.measure(rows, reference(), window, SETTINGS)) for rows in (one, many))
    for key, measured in second.items():
        assert measured.effect == pytest.approx(first[key].effect, abs=1e-9), key
        assert measured.p_value == pytest.approx(first[key].p_value, abs=1e-9), key


def test_ten_degrees_are_found_and_told_in_degrees():
    observed = requests("2012-05-07", "2012-05-27")
    observed["temp"] = observed["temp"] + 10 / 47
    found = decide(distributions.measure(observed, reference(), windows("2012-05-07", 3), SETTINGS), DECISION)
    (verdict,) = [one for one in found if (one.meta["detector"], one.meta["subject"]) == ("wasserstein", "temp")]
    assert verdict.status == "changed"
    assert verdict.data["effect"] == pytest.approx(10, abs=3)
    assert "same weeks of 2011" in verdict.data["reason"]


def test_days_of_the_same_weeks_drawn_at_random_are_fine():
    told = 0
    rows = take(requests("2011-05-01", "2011-06-30"), slice(None))
    days = rows["hour"] // 24
    for seed in range(10):
        rng = np.random.default_rng(seed)
        # The same year again, its days in another order.
        order = rng.permutation(np.unique(days))
        drawn = {name: np.concatenate([values[days == day] for day in order]) for name, values in rows.items()}
        drawn["hour"] = (np.repeat(np.unique(days), 24)[: len(days)] + 365) * 24 + drawn["hr"].astype(int)
        verdicts = decide(distributions.measure(drawn, reference(), windows("2012-05-14", 3), SETTINGS), DECISION)
        told += sum(one.status == "changed" for one in verdicts)
    assert told <= 3


def test_a_window_without_rows_is_not_judged():
    found = distributions.measure(requests("2012-05-07", "2012-05-08"), reference(), windows("2012-07-02", 1), SETTINGS)
    assert {one.status for one in decide(found, DECISION)} == {"not judged"}
