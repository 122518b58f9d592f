"""The time line: the error of each day by version, and all that happened."""

from datetime import UTC, date, datetime

import numpy as np
import pytest

from bike_pipeline.lineage.store.entities import PushedModel, RunRecord
from bike_pipeline.model_registry.deployment import Change
from bike_pipeline.monitoring.timeline import Day, Event, days_of, drawing, events_of


def change(action, version, before=None, at="2012-01-02T08:00:00+00:00", reason="it is better"):
    return Change(1, at, "somebody", action, "stable", before, version, reason)


def test_a_day_has_the_error_of_its_known_labels_and_the_version_that_answered_most():
    columns = {
        "hour": np.array([0, 1, 2, 25, -1]),
        "version": np.array([1, 2, 2, 2, 2]),
        "label": np.array([10.0, np.nan, 40.0, np.nan, 5.0]),
        "answer": np.array([14.0, 20.0, 30.0, 50.0, 999.0], np.float32),
    }
    assert days_of(columns) == [Day(date(2011, 1, 1), 2, 3, 2, 7.0), Day(date(2011, 1, 2), 2, 1, 0, None)]


def test_without_answers_there_are_no_days():
    none = np.zeros(0)
    assert days_of({"hour": none, "version": none, "label": none, "answer": none}) == []


def test_everything_that_happened_is_an_event_with_its_reason_and_evidence():
    pushed = PushedModel(
        model_id=7, model_uri="", version=3, destination="", fingerprint="", exports_fingerprint="", metric_set="",
        pushed_at=datetime(2012, 1, 2, tzinfo=UTC), feedback={"labels": {"rows": 24, "last": "2012-01-31T23:00"}},
    )  # fmt: skip
    changes = [
        change("begin", None),
        change("promote", 2, 1),
        change("promote", 3, 2),
        change("refuse", 4, at="2012-01-04T08:00:00+00:00", reason="too slow"),
        change("rollback", 2, 3, at="2012-01-05T08:00:00+00:00"),
    ]
    began = datetime(2012, 1, 1, tzinfo=UTC)
    runs = [RunRecord("a-run", began, "done", 2, 1, (), "not blessed: mae")]
    found = events_of(changes, runs, [pushed])
    assert [event.kind for event in found] == [
        "trigger", "refusal", "promotion", "feedback", "refusal", "rollback",
    ]  # fmt: skip
    assert found[0].evidence == "explain-run a-run"
    assert found[1].detail == "not blessed: mae"
    assert "24 labels up to 2012-01-31 23:00" in found[3].detail
    assert found[4].detail == "too slow"


def test_what_the_ledger_tells_of_a_run_is_told_in_place_of_a_guess():
    began = datetime(2012, 1, 1, tzinfo=UTC)
    runs = [RunRecord(name, began, "done", 2, 1, (), "not blessed: mae") for name in ("known", "by hand")]
    told = Event(began, "trigger", "run 1 of triggers: refused", "new rows in a.csv", "triggers explain abc")
    alone = Event(began, "refusal", "run 2 of triggers made no model", "no event is left", "triggers explain def")
    found = events_of([], runs, [], {"known": [told], "": [alone]})
    assert [event.title for event in found].count("a run on span 2 version 1") == 1
    assert {told, alone} <= set(found)
    assert not any("known" in event.evidence for event in found)


def test_every_day_and_event_is_drawn_inside_the_picture():
    days = [Day(date(2012, 1, 1), 1, 24, 24, 30.0), Day(date(2012, 2, 9), 2, 24, 0, None)]
    events = [
        Event(datetime(year, month, 5, tzinfo=UTC), "promotion", "version 2 serves", "", "history")
        for year, month in ((2011, 6), (2012, 1), (2026, 1))
    ]
    drawn = drawing(days, events)
    assert [bar["waiting"] for bar in drawn["bars"]] == [False, True]
    assert drawn["bars"][0]["colour"] != drawn["bars"][1]["colour"]
    assert [mark["outside"] for mark in drawn["marks"]] == [True, False, True]
    places = [float(mark["x"]) for mark in drawn["marks"]]
    assert places == sorted(places)
    assert min(places) > 0
    assert max(places) < drawn["width"]
    assert float(drawn["bars"][0]["y"]) == pytest.approx(drawn["top"])
    assert [tick["words"] for tick in drawn["ticks"]] == ["Jan 2012", "Feb"]


def test_a_rollout_is_told_with_its_shares():
    shifts = [
        Change(1, "2012-01-02T08:00:00+00:00", "somebody", "shift", "canary", None, 2, "newer rows", 1.0),
        Change(2, "2012-01-02T09:00:00+00:00", "somebody", "shift", "shadow", None, 3, "unheard", 100.0),
        Change(3, "2012-01-03T08:00:00+00:00", "somebody", "abort", "canary", 2, 2, "rollback: 9 of 30"),
    ]
    found = events_of(shifts, (), ())
    assert [(event.kind, event.title, event.detail) for event in found] == [
        ("rollout", "1 % of the requests go to version 2, the canary", "newer rows"),
        ("rollout", "100 % of the requests are copied to version 3, the shadow", "unheard"),
        ("rollback", "version 2 is no longer the canary", "rollback: 9 of 30"),
    ]
