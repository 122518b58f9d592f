"""What a change costs and what helps, on real rows whose change is known."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pytest

from bike_pipeline.modeling.feedback_record import Feedback
from bike_pipeline.modeling.label_update import moment
from bike_pipeline.monitoring.assessment import assess
from bike_pipeline.monitoring.harm import Amount
from bike_pipeline.monitoring.reference import Reference
from bike_pipeline.monitoring.verdicts import Measurement, decide
from bike_pipeline.settings import load_settings
from bike_pipeline.settings.monitoring import DecisionSettings, HarmSettings
from tests.monitoring.watched import Watched

SETTINGS = HarmSettings()
SUMMER = tuple(range(20, 24))


@pytest.fixture(scope="module")
def watched(embedded_rows):
    return Watched(embedded_rows)


def reference_of(watched, rows):
    kept = Feedback(load_settings().training.feedback)
    return Reference(rows, int(rows["hour"].min()), kept, 1, watched.predict)


def window_of(rows):
    return tuple(datetime.fromisoformat(moment(end(rows["hour"]))) for end in (min, max))


def verdicts(kind="data drift"):
    first = datetime(2012, 6, 1)
    days = [first + timedelta(days=day) for day in range(3)]
    every = [Measurement("any", kind, "temp", day, day, "2011", 99, 99, 9.0, "°C", 1.0, 1e-9) for day in days]
    return decide(every, DecisionSettings())


def assessed(watched, rows, kind="data drift", before=range(8, 20)):
    found = assess(verdicts(kind), rows, reference_of(watched, watched.weeks(*before)), window_of(rows), SETTINGS)
    return found, found.verdicts[0]


def test_a_drift_without_harm_is_harmless(watched):
    found, verdict = assessed(watched, watched.weeks(*SUMMER), "concept drift")
    assert verdict.status == "harmless"
    assert verdict.data["harm"]["low"] < 0 < verdict.data["harm"]["high"]
    assert found.remedies[0].remedy == "nothing"


def test_inputs_that_moved_are_told_with_their_own_part_and_not_with_what_the_level_costs(watched):
    rows = watched.weeks(*SUMMER)
    rows["label"] *= 1.3
    found, verdict = assessed(watched, rows, before=range(18, 20))
    harm = verdict.data["harm"]
    assert harm["rentals_a_day"] == found.attribution.parts["inputs moved"]
    assert harm["rentals_a_day"] < 0.1 * found.harm.amount.rentals_a_day
    assert verdict.status == "harmless"
    assert assessed(watched, rows, "concept drift")[1].status == "changed"


def test_an_error_that_is_usual_at_such_inputs_is_told_and_no_harm(watched):
    rows = watched.weeks(*SUMMER)
    rush = np.isin(rows["hr"], (8, 17, 18))
    found, verdict = assessed(watched, {name: values[rush] for name, values in rows.items()})
    assert found.attribution.cause == "inputs moved"
    assert verdict.data["harm"]["rentals_a_day"] > SETTINGS.tolerated_share * found.attribution.expected
    assert verdict.status == "harmless"
    more = found.harm.amount.rentals_a_day
    assert f"{more:+,.0f} beside what is usual at such inputs" in verdict.data["harm"]["reason"]


@pytest.mark.parametrize("kind", ["data fault", "model", "operation"])
def test_only_a_drift_can_be_harmless(watched, kind):
    assert assessed(watched, watched.weeks(*SUMMER), kind)[1].status == "changed"


def test_a_moved_level_costs_what_the_labels_say_and_feedback_helps(watched):
    rows = watched.weeks(*SUMMER)
    usual = np.abs(rows["label"] - rows["answer"]).mean()
    rows["label"] *= 1.6
    found, verdict = assessed(watched, rows, "concept drift")
    harm = verdict.data["harm"]
    assert verdict.status == "changed"
    more = 24 * (np.abs(rows["label"] - rows["answer"]).mean() - usual)
    assert harm["low"] < more < harm["high"]
    assert harm["low"] > 0
    best = found.remedies[0]
    assert (best.remedy, best.helps) == ("feedback", True)
    assert 0.5 * more < best.gain.rentals_a_day < 1.2 * more
    assert best.gain.low > 0
    assert found.plain()["remedies"][0]["gain"]["rentals_a_day"] == best.gain.rentals_a_day
    assert sum(part["rentals_a_day"] for part in found.plain()["attribution"]["parts"]) == found.attribution.whole


def test_another_pattern_asks_for_training(watched):
    rows = watched.weeks(*SUMMER)
    working = rows["workingday"] > 0
    rows["label"] = np.where(working, np.roll(rows["label"], 4), rows["label"])
    found, _ = assessed(watched, rows, "concept drift")
    assert found.attribution.cause == "pattern moved"
    assert found.remedies[0].remedy == "retrain"


def test_a_broken_source_is_to_be_fixed_first_and_its_gain_is_its_part(watched):
    rows = watched.weeks(*SUMMER)
    temp = ((rows["temp"] * 47 - 8) * 1.8 + 32 + 8) / 47
    atemp = ((rows["atemp"] * 66 - 16) * 1.8 + 32 + 16) / 66
    broken = watched.changed(rows, temp=temp, atemp=atemp)
    found, _ = assessed(watched, broken, "data fault")
    best = found.remedies[0]
    assert best.remedy == "fix the source"
    lost = 24 * (np.abs(rows["label"] - broken["answer"]) - np.abs(rows["label"] - rows["answer"])).mean()
    assert best.gain.rentals_a_day == pytest.approx(lost, rel=0.05)
    assert "°F where °C is asked for" in best.reason


def test_a_single_bad_day_is_named_and_starts_nothing(watched):
    rows = watched.weeks(*range(47, 51))
    christmas = (rows["mnth"] == 12) & (rows["day"] == 19)
    storm = (rows["mnth"] == 12) & (rows["day"] == 11)
    rows["label"] = np.where(christmas | storm, 0.05 * rows["label"], rows["label"])
    rows["weathersit"] = np.where(storm, 3, rows["weathersit"])
    found, verdict = assessed(watched, rows, "concept drift", range(35, 47))
    named = {one.day: one.why for one in found.harm.bad_days}
    assert named["2012-12-19"] == "no reason is known"
    assert verdict.status == "harmless"
    assert found.remedies[0].remedy == "nothing"
    assert "2012-12-19 (no reason is known)" in found.remedies[0].reason
    assert not any(one.helps for one in found.remedies[1:])


def test_the_24th_of_december_is_told_by_its_name(watched):
    rows = watched.weeks(*range(48, 53))
    eve = (rows["mnth"] == 12) & (rows["day"] == 24)
    rows["label"] = np.where(eve, 0.0, rows["answer"] * 1.02)
    found, _ = assessed(watched, rows, "concept drift", range(35, 47))
    assert [(one.day, one.why) for one in found.harm.bad_days] == [("2012-12-24", "Christmas")]


def test_without_labels_harm_is_not_known_and_says_so(watched):
    rows = watched.weeks(*SUMMER)
    rows["label"][:] = np.nan
    rows |= {"lower": rows["answer"] * 0.5, "upper": rows["answer"] * 1.5}
    found, verdict = assessed(watched, rows)
    assert verdict.status == "changed"
    assert (verdict.data["harm"]["rentals_a_day"], verdict.data["harm"]["low"]) == (None, None)
    assert "the answers' own intervals let expect" in verdict.data["harm"]["reason"]
    assert found.plain() == {"attribution": None, "remedies": []}
    assert "0 labelled rows" in found.missing


@pytest.mark.parametrize("lacking", ["predict", "first_untrained"])
def test_a_reference_that_lacks_what_it_takes_is_told(watched, lacking):
    rows = watched.weeks(*SUMMER)
    known = {"first_untrained": 0, "predict": watched.predict, lacking: None}
    found = assess(verdicts(), rows, Reference(watched.weeks(8, 9), **known), window_of(rows), SETTINGS)
    assert found.verdicts[0].data == verdicts()[0].data
    assert found.missing.startswith("harm, cause and remedy: ")


def test_an_hour_that_is_asked_for_often_counts_once(watched):
    rows = watched.weeks(*SUMMER)
    often = {name: np.concatenate([values, *[values[:12]] * 50]) for name, values in rows.items()}
    once, _ = assessed(watched, rows)
    found, _ = assessed(watched, often)
    assert found.harm.amount.rentals_a_day == pytest.approx(once.harm.amount.rentals_a_day, rel=0.05, abs=5)
    assert found.attribution.observed == pytest.approx(once.attribution.observed)


def test_the_interval_holds_the_mean_of_days_that_resemble_each_other():
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(400):
        noise = rng.normal(size=40)
        values = np.convolve(noise, [1.0, 0.6, 0.3], "valid")[:28]
        amount = Amount.of_days(np.arange(28), values)
        held += amount.low <= 0.0 <= amount.high
    # Nine in ten are to be held; without the correlation it is three in four.
    assert held >= 0.8 * 400


def test_two_days_have_no_interval():
    assert Amount.of_days(np.arange(2), np.array([1.0, 3.0])) == Amount(2.0)
    assert Amount.of_days(np.arange(0), np.array([])) == Amount(None)
