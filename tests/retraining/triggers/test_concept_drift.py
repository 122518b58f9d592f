"""A drift of the demand asks for one run, if that helps for certain and there is something to learn."""

import json
import shutil
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bike_pipeline.data.ingest import ingest
from bike_pipeline.monitoring import report as reports
from bike_pipeline.retraining import ledger_tables as tables
from bike_pipeline.retraining.events import State
from bike_pipeline.retraining.triggers.concept_drift import ALERT, ConceptDrift
from bike_pipeline.settings import load_settings
from tests.data.making import make_rows, to_csv
from tests.lineage.world import SECOND, Runs
from tests.monitoring.reporting import measured, reported

DRIFT = measured("concept drift", "answers", "cusum")
RETRAIN = {
    "remedy": "retrain",
    "gain": {"rentals_a_day": 90.0, "low": 40.0, "high": 140.0},
    "reason": "",
    "helps": True,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two models, of which the second serves and has learnt both spans."""
    return Runs(tmp_path_factory.mktemp("drift") / "workspace").two()


@pytest.fixture
def world(trained, tmp_path, ledger, monkeypatch):
    """Settings, a trigger of them, and what the monitor says in a folder of its own."""

    class World:
        runs = trained
        moment = datetime(2026, 11, 30, 7, tzinfo=UTC)

        def settings(self, **values):
            named = {
                "workspace": trained.workspace,
                "monitoring.path": tmp_path / "monitoring",
                "retraining.path": tmp_path / "retraining",
                "data.store": tmp_path / "spans",
                "retraining.storage.settle_seconds": 0.05,
                **{f"retraining.concept_drift.{name}": value for name, value in values.items()},
            }
            return load_settings(None, tuple(f"{name}={value}" for name, value in named.items()))

        def trigger(self, **values):
            return ConceptDrift(self.settings(**values), ledger)

        def settled(self, trigger):
            """Let a trigger see that its file stays as it is, since the clock of the test stands still."""
            assert "may not be finished" in said(trigger.look())
            threading.Event().wait(0.06)
            return trigger

        def told(self, *measurements, **changed):
            values = {"version": SECOND, "remedies": [RETRAIN], **changed}
            reports.write(replace(reported(*measurements), **values), tmp_path / "monitoring")

        def clock(self):
            return self.moment.timestamp()

        def newer_rows(self):
            ingest(self.settings(), str(self.file("newer.csv")))

        def file(self, name):
            path = tmp_path / name
            path.write_bytes(to_csv(make_rows("2013-01-01", 20)))
            return path

    Path(trained.settings.serving_path, str(SECOND)).mkdir(parents=True, exist_ok=True)
    shutil.copytree(trained.settings.store_uri, tmp_path / "spans")
    made = World()
    monkeypatch.setattr("time.time", made.clock)
    return made


def said(look):
    assert look.events == ()
    (note,) = look.notes
    return note.text


def test_a_drift_fires_once_for_a_model_and_the_rows_that_are_there(world, make_loop, ledger):
    world.told(DRIFT)
    world.newer_rows()
    trigger = world.trigger()
    loop = make_loop(triggers=[trigger])
    assert loop.poll(everything=True) == 1
    (one,) = ledger.events()
    assert one.event.reason.startswith("concept drift at 2026-11-30 06:00 UTC; retrain helps by +90 (+40 to +140)")
    assert loop.work().state is State.PROMOTED
    # The monitor looks again and says the same.
    world.told(DRIFT, at=world.moment)
    for owner in ("the same", "another"):
        later = make_loop(owner, triggers=[world.trigger()])
        assert later.poll(everything=True) == 0
        assert later.work() is None


def test_without_newer_rows_a_run_would_train_the_same_model(world):
    world.told(DRIFT)
    assert "would train the same model again" in said(world.trigger().look())


def test_a_file_of_newer_rows_is_brought_along_and_tried_once(world, make_loop, ledger, executor):
    world.told(DRIFT)
    path = world.file("labelled.csv")
    trigger = world.settled(world.trigger(data=path))
    loop = make_loop(triggers=[trigger])
    assert loop.poll(everything=True) == 1
    (one,) = ledger.events()
    assert Path(one.event.upload).read_bytes() == path.read_bytes()
    executor.blessed = False
    assert loop.work().state is State.REFUSED
    assert loop.poll(everything=True) == 0
    (row,) = [row for row in ledger.rows(tables.checks) if "was tried" in row["note"]]
    assert "refused: not blessed" in row["note"]


def test_a_file_that_the_span_store_has_brings_nothing(world):
    world.told(DRIFT)
    world.newer_rows()
    look = world.settled(world.trigger(data=world.file("newer.csv"))).look()
    (event,) = look.events
    assert event.upload == ""
    assert not list((world.settings().retraining_path / "uploads").glob("*"))


def test_a_file_that_is_not_there_says_so(world, tmp_path):
    world.told(DRIFT)
    assert "no such file" in said(world.trigger(data=tmp_path / "missing.csv").look())


@pytest.mark.parametrize(
    ("measurements", "changed", "words"),
    [
        ([], {}, "not judged"),
        ([measured("data drift", "temp")], {}, "no concept drift: data drift"),
        ([measured("concept drift", "answers", effect=0.1)], {}, "fine; labels and answers have not moved apart"),
        ([DRIFT, measured("data fault", "hum")], {}, "data are at fault"),
        ([DRIFT], {"remedies": []}, "what helps cannot be told"),
        ([DRIFT], {"remedies": [RETRAIN | {"remedy": "fix the source", "reason": "unit"}]}, "fix the source (unit)"),
        ([DRIFT], {"remedies": [RETRAIN | {"remedy": "nothing"}]}, "what helps is: nothing"),
        ([DRIFT], {"remedies": [RETRAIN | {"helps": False}]}, "no remedy is certain"),
        ([DRIFT], {"remedies": [RETRAIN | {"gain": {"rentals_a_day": 9.0, "low": None, "high": None}}]}, "certain"),
        ([DRIFT], {"version": 1}, f"looked at version 1, and version {SECOND} serves"),
        ([DRIFT], {"at": datetime(2026, 11, 27, 6, tzinfo=UTC)}, "73 hours old, and 48 are allowed"),
    ],
)
def test_what_does_not_fire_says_why(measurements, changed, words, world):
    world.newer_rows()
    world.told(*measurements, **changed)
    assert words in said(world.trigger().look())


def test_without_a_report_or_a_model_it_says_so(world, settings_of, ledger):
    assert "the monitor has not looked yet" in said(world.trigger().look())
    assert "no model serves" in said(ConceptDrift(settings_of(), ledger).look())


def test_an_alert_counts_where_there_is_no_fresh_report_and_not_for_ever(world, ledger):
    world.newer_rows()
    ledger.set_control(ALERT, {"at": world.moment.timestamp(), "summary": "labels and answers have moved apart"})
    (event,) = world.trigger().look().events
    assert event.reason == "concept drift, by Alertmanager: labels and answers have moved apart"
    # What the monitor itself says is better evidence.
    world.told(measured("concept drift", "answers", effect=0.1))
    assert "have not moved apart" in said(world.trigger().look())
    world.moment += timedelta(days=3)
    assert "hours old" in said(world.trigger().look())


def test_a_report_that_was_changed_is_not_believed(world, make_loop, ledger):
    world.told(DRIFT)
    (path,) = (world.settings().monitoring_path / "reports").glob("*.json")
    content = json.loads(path.read_text())
    content["report"]["status"] = "fine"
    path.write_text(json.dumps(content))
    make_loop(triggers=[world.trigger()]).poll(everything=True)
    (row,) = ledger.rows(tables.checks)
    assert "cannot be believed" in row["note"]
