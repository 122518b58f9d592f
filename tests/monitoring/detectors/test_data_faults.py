"""Faults that are certain: every one is found within a day, with its reason, and clean traffic has none."""

import numpy as np
import pytest

from bike_pipeline.monitoring.detectors import data_faults, feed_faults
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
    fault = faults(observed)["range", column]
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


def late(observed, share=0.1):
    """Some rows of all but the first day."""
    return (observed["hour"] >= observed["hour"][0] + 24) & some(observed, share)


def test_a_sensor_that_is_stuck_contradicts_the_others_of_its_hour():
    observed = requests(FIRST, LAST, a_hour=8)
    observed["temp"] = np.where(late(observed), observed["temp"][15 * 8], observed["temp"])
    assert faults(observed) == {}
    assert ("contradiction", "temp") in faults(observed, "2012-06-05")


def test_wind_in_metres_a_second_contradicts_the_others():
    observed = requests("2012-04-02", "2012-04-03", a_hour=8)
    observed["windspeed"] = np.where(late(observed), observed["windspeed"] / 3.6, observed["windspeed"])
    assert list(faults(observed, "2012-04-03")) == [("contradiction", "windspeed")]


def test_a_single_client_is_compared_with_the_spans():
    observed = requests("2011-07-04", "2011-07-04")
    observed["hum"] = observed["hum"] * 0.5
    assert ("contradiction", "hum") in faults(observed, "2011-07-04")


def test_a_sensor_that_stands_still_for_longer_than_any_did_is_stuck():
    observed = requests("2012-06-04", "2012-06-06")
    observed["windspeed"] = np.full(72, 0.1)
    found = faults(observed, "2012-06-04", days=3)
    assert "windspeed says 6.7 km/h for 72 hours" in found["stuck", "windspeed"].data["reason"]


def test_the_fault_that_the_data_itself_has_is_found():
    # The felt temperature of 17 August 2012 stands still.
    assert ("relation", "temp") in faults(requests("2012-08-16", "2012-08-18"), "2012-08-17")


def feed(observed, first="2012-06-05", count=1):
    before = windows(FIRST, 1, 1)
    found = decide(feed_faults.measure(observed, reference(), before + windows(first, count, 1), SETTINGS), DECISION)
    return {one.meta["detector"]: one.status for one in found}


def spread(observed):
    """Each client has a station of its own."""
    noise = np.random.default_rng(4).normal(0.0, 0.004, len(observed["hour"]))
    return observed | {"temp": np.clip(observed["temp"] + noise, 0.0, 1.0)}


def test_a_clock_that_is_off_by_an_hour_is_told():
    observed = spread(requests(FIRST, LAST, a_hour=8))
    assert feed(observed) == {"clock": "fine", "duplicate": "fine"}
    off = late(observed)
    observed["hour"] = observed["hour"] + off
    observed["hr"] = (observed["hr"] + off) % 24
    assert feed(observed) == {"clock": "changed", "duplicate": "fine"}


def test_the_zone_s_own_clock_is_no_fault():
    observed = spread(requests("2012-03-09", "2012-03-13", a_hour=8))
    summer = observed["hour"] >= observed["hour"][0] + 2 * 24
    observed["requested_at"] = observed["requested_at"] - summer * np.timedelta64(1, "h")
    found = feed_faults.measure(observed, reference(), windows("2012-03-09", 5, 1), SETTINGS)
    assert {one.status for one in decide(found, DECISION)} == {"fine"}


def test_a_replay_tells_nothing_of_clocks():
    observed = spread(requests(FIRST, LAST, a_hour=8))
    observed["requested_at"] = np.full(len(observed["hour"]), np.datetime64("2026-01-01", "ms"))
    assert feed(observed)["clock"] == "not judged"


def test_a_feed_that_sends_rows_twice_is_told():
    observed = spread(requests(FIRST, LAST, a_hour=8))
    again = np.flatnonzero(late(observed))
    observed = {name: np.concatenate([values, values[again]]) for name, values in observed.items()}
    assert feed(observed) == {"clock": "fine", "duplicate": "changed"}


def test_clients_that_share_a_forecast_are_no_duplicates():
    assert feed(requests(FIRST, LAST, a_hour=8)) == {"clock": "fine", "duplicate": "fine"}
