"""Single rows, features together, skew, broken input, and the system itself."""

import numpy as np
import pytest

from bike_pipeline import features
from bike_pipeline.monitoring.columns import take
from bike_pipeline.monitoring.detectors import (
    DETECTORS,
    domain_classifier,
    measure_all,
    operation,
    outliers,
    sensitivity,
    skew,
)
from bike_pipeline.monitoring.verdicts import decide
from bike_pipeline.settings import load_settings
from tests.monitoring.watching import DECISION, SETTINGS, reference, requests, windows

FIRST, LAST = "2012-05-07", "2012-05-27"


def verdicts(detector, observed, then=None, first=FIRST, count=3, days=7):
    found = decide(detector.measure(observed, then or reference(), windows(first, count, days), SETTINGS), DECISION)
    return {(one.meta["detector"], one.meta["subject"]): one for one in found}


@pytest.fixture(scope="module")
def forest():
    return outliers.OutlierDetector(reference().columns)


def row(**values):
    found = take(requests(FIRST, FIRST), 14)
    return {feature.name: float(found[feature.name]) for feature in features.REQUIRED_INPUTS} | values


def test_a_row_as_in_training_is_no_outlier(forest):
    assert forest.outlier_of(row()) == ""
    assert forest.are_outliers(requests(FIRST, LAST)).mean() < 0.02


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"temp": 1.9}, "1.9 would be 81 °C; looks like Fahrenheit"),
        ({"weathersit": 7.0}, "weathersit 7 is no weather"),
        ({"hum": float("nan")}, "hum is no number"),
        # A January night as warm as the hottest afternoon, and dry, and a storm: each of them has been.
        ({"mnth": 1.0, "hr": 3.0, "temp": 0.96, "atemp": 0.1, "hum": 0.02, "windspeed": 0.85}, "no hour of training"),
    ],
)
def test_an_outlier_is_told_with_its_reason(forest, values, words):
    assert words in forest.outlier_of(row(**values))


def test_features_that_no_longer_go_together_are_told_by_the_classifier():
    observed = requests(FIRST, LAST)
    assert verdicts(domain_classifier, observed)["domain_classifier", "all features"].status == "fine"
    # Days and nights change places in what the air is like; each feature by itself is as it was.
    swapped = np.roll(np.arange(len(observed["hour"])), 12)
    observed |= {name: observed[name][swapped] for name in ("temp", "hum")}
    found = verdicts(domain_classifier, observed)["domain_classifier", "all features"]
    assert found.status == "changed"


def test_requests_that_are_not_what_the_spans_hold_are_skewed():
    then = reference()
    with_schema = type(then)(then.columns, then.first_untrained, schema=load_settings().schema_path)
    observed = requests("2011-05-02", "2011-05-22")
    sound = verdicts(skew, observed, with_schema, "2011-05-02")
    assert {one.status for one in sound.values()} == {"fine"}
    observed["hum"] = observed["hum"] * 0.6
    found = verdicts(skew, observed, with_schema, "2011-05-02")
    assert [subject for (_, subject), one in found.items() if one.status == "changed"] == ["hum"]
    later = verdicts(skew, requests(FIRST, LAST), with_schema)
    assert {one.status for one in later.values()} == {"not judged"}


@pytest.mark.parametrize("first", ["2011-01-03", "2011-05-02", "2011-11-07"])
@pytest.mark.parametrize(("scale", "warmer"), [(1.0, 0.0), (0.6, 0.0), (0.9, 0.05), (1.2, 0.02)])
def test_skew_is_what_tfdv_says_it_is(first, scale, warmer):
    import pandas as pd
    import tensorflow_data_validation as tfdv

    schema = tfdv.load_schema_text(str(load_settings().schema_path))
    theirs = requests(first, f"{first[:8]}20")
    changed = {"hum": theirs["hum"] * scale, "temp": theirs["temp"] + warmer, "hr": np.minimum(theirs["hr"] + 1, 23)}
    names = ("temp", "hum", "hr", "windspeed")
    frames = [pd.DataFrame({name: one[name] for name in names}) for one in (theirs, {**theirs, **changed})]
    training, serving = map(tfdv.generate_statistics_from_dataframe, frames)
    told = tfdv.validate_statistics(training, schema, serving_statistics=serving).drift_skew_info
    assert {info.path.step[-1] for info in told} >= set(names)
    for info in (one for one in told if one.path.step[-1] in names):
        ours, asked = (frame[info.path.step[-1]].to_numpy() for frame in reversed(frames))
        (measured,) = info.skew_measurements
        assert skew.divergence(ours, asked) == pytest.approx(measured.value, abs=0.05)
        assert (skew.divergence(ours, asked) > measured.threshold) == (measured.value > measured.threshold)


@pytest.mark.parametrize(("edge", "status"), [(0.0, "fine"), (900.0, "changed")])
def test_answers_that_jump_for_a_tenth_of_a_degree_are_told(edge, status):
    then = reference(predict=lambda rows: 100.0 + edge * (np.asarray(rows["temp"]) * 1000 % 8 > 4))
    found = verdicts(sensitivity, requests(FIRST, LAST), then, count=1)
    (verdict,) = found.values()
    assert bool(verdict.data["windows"][-1]) == (status == "changed")


def test_labels_that_stop_coming_are_told_by_their_age():
    observed = requests(FIRST, "2012-07-29")
    observed["label"] = np.where(observed["hr"] + observed["hour"] > observed["hour"][200], np.nan, observed["label"])
    found = verdicts(operation, observed, first="2012-07-09")
    assert found["freshness", "labels"].status == "changed"
    assert found["freshness", "model"].status == "fine"


def test_a_client_that_falls_silent_is_told():
    observed = requests(FIRST, "2012-05-22")
    assert verdicts(operation, observed, count=2)["silence", "requests"].status == "fine"
    silent = verdicts(operation, observed, count=4)["silence", "requests"]
    assert silent.status == "changed"
    assert "0.0 rows an hour, where 1.0 are usual" in silent.data["reason"]


def test_a_smaller_share_that_is_logged_is_no_silence_and_no_fewer_answers():
    observed = requests(FIRST, LAST)
    hours = observed["hour"]
    late = hours >= hours.max() - 7 * 24 + 1
    kept = ~late | (np.arange(len(hours)) % 16 == 0)
    few = {name: np.asarray(values)[kept] for name, values in observed.items()}
    told = verdicts(operation, few)["silence", "requests"]
    assert told.status == "changed"
    few["sampling_rate"] = np.where(late, 1 / 16, 1.0)[kept]
    told = verdicts(operation, few)["silence", "requests"]
    assert told.status == "fine"
    assert "where 1.0 are usual" in told.data["reason"]
    observed["version"] = np.where(observed["hr"] == 5, 2, 3)
    observed["sampling_rate"] = np.where(observed["hr"] == 5, 1 / 8, 1.0)
    assert "26% of answers" in verdicts(operation, observed)["version_skew", "versions"].data["reason"]


def test_answers_of_a_version_that_is_not_promoted_are_told():
    observed = requests(FIRST, LAST)
    assert verdicts(operation, observed)["version_skew", "versions"].status == "fine"
    observed["version"] = np.where(observed["hr"] == 5, 2, 3)
    found = verdicts(operation, observed)["version_skew", "versions"]
    assert "of versions 2" in found.data["reason"]


def test_every_detector_takes_rows_that_are_not_there():
    nothing = take(requests(FIRST, FIRST), slice(0, 0))
    measured = measure_all(nothing, reference(), windows(FIRST, 3), SETTINGS)
    assert {one.status for one in decide(measured, DECISION) if one.meta["subject"] not in {"model", "spans"}} == {
        "not judged"
    }
    assert len(DETECTORS) == 13


def test_more_requests_than_usual_are_no_silence():
    few = requests(FIRST, LAST)
    late = few["hour"] >= few["hour"].max() - 7 * 24 + 1
    times = np.where(late, 5, 1)
    many = {name: np.repeat(np.asarray(values), times) for name, values in few.items()}
    told = verdicts(operation, many)["silence", "requests"]
    assert (told.status, told.data["effect"]) == ("fine", 0.0)
    assert "5.0 rows an hour, where 1.0 are usual" in told.data["reason"]
