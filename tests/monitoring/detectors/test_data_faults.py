"""Faults that are certain: every one is found within a day, with its reason, and clean traffic has none."""

import numpy as np
import pytest

from bike_pipeline.monitoring.detectors import data_faults
from bike_pipeline.monitoring.verdicts import decide
from tests.monitoring.watching import DECISION, SETTINGS, reference, requests, windows

FIRST, LAST = "2012-06-04", "2012-06-10"


def faults(observed, first=FIRST, count=1, days=1):
    found = decide(data_faults.measure(observed, reference(), windows(first, count, days), SETTINGS), DECISION)
    return {(one.meta["detector"], one.meta["subject"]): one for one in found if one.status == "changed"}


def some(observed, share=0.1):
    return np.random.default_rng(3).random(len(observed["hour"])) < share


def test_clean_traffic_has_none():
    assert faults(requests(FIRST, LAST, a_hour=8)) == {}


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("weathersit", 5.0, "weathersit 5 is no weather that there is"),
        ("temp", 1.6, "temp 1.6 is not from 0 to 1; 1.6 would be 67 °C; looks like Fahrenheit"),
        ("hum", 55.0, "55 would be 5500 %; looks like % that nobody scaled"),
        ("windspeed", np.nan, "windspeed is no number"),
        ("hr", 24.0, "hr 24 is not from 0 to 23"),
        ("weekday", 2.5, "weekday 2.5"),
    ],
)
def test_what_no_value_may_be_is_told_with_its_reason(column, value, words):
    observed = requests(FIRST, FIRST, a_hour=8)
    observed[column] = np.where(some(observed), value, observed[column])
    (fault,) = faults(observed).values()
    assert fault.meta["kind"] == "data fault"
    assert words in fault.data["reason"]
    assert fault.data["effect"] == pytest.approx(0.1, abs=0.05)


def test_an_optional_input_that_stops_coming_is_told():
    observed = requests(FIRST, LAST, a_hour=8)
    late = observed["hour"] >= observed["hour"][0] + 24
    observed["temp_mean_24h"] = np.where(late & some(observed), 0.0, observed["temp_mean_24h"])
    assert faults(observed) == {}
    assert list(faults(observed, "2012-06-05")) == [("missing", "temp_mean_24h")]


def test_what_no_client_ever_sends_is_not_judged():
    observed = requests(FIRST, FIRST, a_hour=8)
    observed["day"] = np.zeros(len(observed["hour"]))
    found = decide(data_faults.measure(observed, reference(), windows(FIRST, 1, 1), SETTINGS), DECISION)
    (verdict,) = [one for one in found if (one.meta["detector"], one.meta["subject"]) == ("missing", "day")]
    assert verdict.status == "not judged"
    assert "no request sends" in verdict.data["reason"]


def test_one_broken_row_is_no_fault():
    observed = requests(FIRST, FIRST, a_hour=8)
    observed["hum"][5] = 7.0
    assert faults(observed) == {}
