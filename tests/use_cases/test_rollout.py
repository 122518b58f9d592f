"""Where a rollout's evidence comes from: labels of the monitor, an earlier shadow, what was on record of the run."""

from __future__ import annotations

import datetime as dt
import threading

import numpy as np
import pytest

from bike_pipeline.errors import ConfigurationError, ServerError, StorageError
from bike_pipeline.model_registry import ModelRegistry, layout, model_signature
from bike_pipeline.modeling.feedback import GROUPS
from bike_pipeline.rollout.delivery import controller
from bike_pipeline.rollout.delivery.evidence import Share, Tracked
from bike_pipeline.rollout.delivery.judging import Verdict
from bike_pipeline.settings import load_settings
from bike_pipeline.use_cases import monitoring, rollout
from tests.monitoring.logged import HOUR, ROW, entry, write
from tests.recording import Recorder
from tests.rollout.delivery.logged import CANDIDATE, STABLE, Logs, access, answered, base_path


@pytest.fixture
def settings(tmp_path):
    base_path(tmp_path)
    steps = "[{percent: 1, requests: 20, minutes: 0}, {percent: 50, requests: 20, minutes: 0}]"
    return load_settings(None, (f"workspace={tmp_path}", f"rollout.steps={steps}", "rollout.poll_seconds=0.05"))


def test_labels_tell_the_error_of_both_versions_on_the_same_hours_and_who_missed_an_interval(settings):
    now = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=5)
    asked, around = [], np.tile(np.array([-1.5, 0.0, 1.5], np.float32), (GROUPS, 1))
    for number, hour in enumerate(range(8, 20)):
        row = {**ROW, "hr": hour}
        asked.append(entry(f"s{number}", row, answers=[100.0], at=now, version=STABLE))
        asked.append(entry(f"c{number}", row, answers=[130.0], at=now, version=CANDIDATE, quantiles=around))
    write(settings.request_log_path, *asked)
    store = monitoring.observation_store(settings)
    store.add(settings.request_log_path, "bike_demand", dt.datetime.now(dt.UTC))
    labelled = rollout._labelled(settings)
    tracked = Tracked("canary", CANDIDATE, STABLE)
    assert labelled(tracked, now, now + dt.timedelta(seconds=1)) is None
    hours = np.arange(HOUR, HOUR + 11)
    store.join_labels(hours, np.array([10.0] + [110.0] * 10))
    found = rollout._labelled(settings)(tracked, now, now + dt.timedelta(seconds=1))
    # An hour waits for its label still. The candidate is off by 20, the stable version by 10; at first by 120 and 90.
    assert found.pairs == pytest.approx([30.0] + [10.0] * 10)
    assert found.missed == Share(1, 11)
    assert rollout._labelled(settings)(tracked, now + dt.timedelta(seconds=1), now + dt.timedelta(seconds=9)) is None


def test_an_earlier_shadow_says_how_far_a_candidate_agrees(settings, tmp_path):
    registry, logs = ModelRegistry(settings.serving_path), Logs(tmp_path)
    reader = rollout.reader_of(settings)
    assert rollout._shadow(reader, registry.history(), CANDIDATE) is None
    begun = registry.shift(CANDIDATE, "shadow", 100, "to compare")
    at = dt.datetime.fromisoformat(begun.at) + dt.timedelta(microseconds=10)
    names = [f"r{number}" for number in range(10)]
    logs.add(
        [access(name, "stable", at) for name in names],
        [answered(name, STABLE, at, 100.0) for name in names]
        + [answered(name, CANDIDATE, at, 100.0 if number else 900.0) for number, name in enumerate(names)],
    )
    registry.abort("shadow", "compared")
    # What is asked after its end is no part of it.
    late = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=30)
    logs.add([access("late", "stable", late)], [answered("late", STABLE, late), answered("late", CANDIDATE, late, 0.0)])
    assert rollout._shadow(reader, registry.history(), CANDIDATE) == Share(1, 10)
    rollout.start(settings, CANDIDATE)
    safety = rollout.status(settings).safety
    assert {part.name: part.value for part in safety.parts}["shadow agreement"] == pytest.approx(0.9)
    assert safety.score == pytest.approx(0.9 / 4)


def test_a_server_that_does_not_follow_is_told_again(settings, tmp_path, monkeypatch):
    rollout.start(settings, CANDIDATE)
    at = dt.datetime.fromisoformat(ModelRegistry(settings.serving_path).history()[-1].at)
    logs = Logs(tmp_path)
    logs.ask(90, at + dt.timedelta(microseconds=10), track="stable")
    logs.ask(90, at + dt.timedelta(microseconds=10), failed=50)
    calls, looks = [], []

    def roll_out(*_):
        calls.append(ModelRegistry(settings.serving_path).deployment().labels)
        if len(calls) < 3:
            raise ServerError("the server does not answer", where="127.0.0.1:1")

    monkeypatch.setattr(controller, "roll_out", roll_out)
    stop = threading.Event()

    def looked(look):
        looks.append(look)
        if len(looks) > 5:
            stop.set()

    with pytest.raises(ServerError, match="version 2 was rolled back: error share failed: 50 of 90"):
        rollout.watch(settings, looked=looked, stop=stop)
    assert calls == [{"stable": STABLE}] * 3
    assert [str(look.problem or "") for look in looks] == ["127.0.0.1:1: the server does not answer"] * 2 + [""]
    calls.clear()
    with pytest.raises(ServerError, match="does not answer"):
        rollout.watch(settings, once=True)


def test_what_cannot_be_read_now_ends_no_watch(settings, monkeypatch):
    rollout.start(settings, CANDIDATE)
    looks = []

    def fails(_):
        raise StorageError("the bucket does not answer")

    monkeypatch.setattr(controller.Delivery, "step", fails)
    stop = threading.Event()

    def looked(look):
        looks.append((look.verdict, look.reason))
        stop.set()

    rollout.watch(settings, looked=looked, stop=stop)
    assert looks == [(Verdict.HOLD, "the bucket does not answer")]


@pytest.mark.parametrize(
    ("assignment", "reason"),
    [
        ("rollout.steps=[]", "name at least one"),
        ("rollout.steps=[{percent: 10, requests: 1, minutes: 0}, {percent: 10, requests: 1, minutes: 0}]", "larger"),
        ("rollout.steps=[{percent: 100, requests: 1, minutes: 0}]", "less than 100"),
        ("rollout.approval=[20]", "no step reaches 20 percent"),
        ("rollout.alpha=0", "greater than 0"),
        ("rollout.evidence.prometheus=somewhere", "pattern"),
        ("rollout.automatic=blue", "canary"),
    ],
)
def test_settings_that_make_no_sense_are_refused(assignment, reason):
    with pytest.raises(ConfigurationError, match=reason):
        load_settings(None, (assignment,))


def test_what_is_signed_of_a_version_and_the_report_of_its_run_are_parts_of_its_safety(settings, tmp_path):
    registry = ModelRegistry(settings.serving_path)
    decision = {
        "kind": "change",
        "metric": "mae",
        "slice": "",
        "value": -0.1,
        "upper": 0.05,
        "high": 0.01,
        "binding": True,
    }
    decisions = [{**decision, "slicing": "overall"}, {**decision, "slicing": "season", "high": 0.05}]
    evidence = {"model": {"model_id": 3, "run_id": "a-run"}, "gates": {"decisions": decisions}}
    record = {"fingerprint": layout.fingerprint(tmp_path / "serving" / "model-2"), "exports_fingerprint": ""}
    model = tmp_path / "serving" / "model-2"
    registry.add(model, 3, record, lambda folder: model_signature.write(folder, evidence, None, 3))
    assert parts_of(settings) == pytest.approx([0.8, 0.0, None, None])
    settings.metadata_file.parent.mkdir(parents=True, exist_ok=True)
    recorder = Recorder(settings.metadata_file)
    report = tmp_path / "report"
    report.mkdir()
    (report / "report.json").write_text('{"findings": [{"check": "drift"}]}')
    recorder.execution("DataGate", "a-run", outputs={"report": recorder.artifact("Report", str(report))})
    assert parts_of(settings) == pytest.approx([0.8, 0.0, None, 0.5])


def parts_of(settings):
    return [part.value for part in rollout._safety(settings, rollout.reader_of(settings), 3).parts]
