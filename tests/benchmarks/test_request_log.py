"""The log that the benchmark writes is one that the monitor takes in, and a goal that is missed is told."""

from __future__ import annotations

import pytest

from benchmarks import request_log
from benchmarks.processes import Timing
from bike_pipeline.monitoring.observations import ObservationStore
from tests.monitoring.logged import MODEL, NOW


def test_what_is_written_is_taken_in(tmp_path):
    request_log.write_log(tmp_path / "log", 2_500)
    store = ObservationStore(tmp_path / "observations")
    added = store.add(tmp_path / "log", MODEL, NOW.replace(year=9000))
    assert (added.rows, added.without_day, dict(added.set_aside)) == (2_500, 0, {})
    assert len(store.hours()["hour"]) > 2_000


@pytest.mark.parametrize(("seconds", "megabytes", "code"), [(29.0, 900.0, 0), (31.0, 900.0, 1), (29.0, 1001.0, 1)])
def test_each_goal_can_be_missed(monkeypatch, capsys, seconds, megabytes, code):
    one = Timing(seconds, 5.0, megabytes)
    found = {"monitor ingest": one, "monitor run": one}
    monkeypatch.setattr(request_log, "measure", lambda folder, requests: found)
    assert request_log.main([]) == code
    assert ("MISSED" in capsys.readouterr().out) == bool(code)
