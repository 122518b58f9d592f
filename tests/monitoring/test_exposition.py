"""What the monitor found, as a file that node_exporter reads."""

from __future__ import annotations

import dataclasses
import math
import stat

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bike_pipeline.monitoring import exposition, report
from tests.monitoring.reporting import measured, reported


def told(path):
    families = text_string_to_metric_families(path.read_text(encoding="utf-8"))
    return {(s.name, *sorted(s.labels.items())): s.value for family in families for s in family.samples}


def written(folder, found):
    return told(exposition.write(folder, exposition.MONITOR_FILE, exposition.of_report(found)))


def test_each_verdict_is_told_with_its_effect_and_its_harm(tmp_path):
    days = [{"version": 7, "mae": 31.5}, {"version": 7, "mae": None}]
    found = written(
        tmp_path,
        reported(
            measured("concept drift", "answers", "cusum", effect=0.75),
            measured("data drift", "temp", "psi", effect=0.1),
            measured("model", "season winter", "error", effect=None),
            harm={"rentals_a_day": 420.0, "low": 300.0, "high": 500.0},
            days=days,
        ),
    )
    cusum = (("detector", "cusum"), ("kind", "concept drift"))
    assert found[("bike_monitor_verdict", *cusum, ("status", "changed"), ("subject", "answers"))] == 1
    assert found[("bike_monitor_effect", *cusum, ("subject", "answers"), ("unit", "share"))] == 0.75
    assert found[("bike_monitor_minimum", *cusum, ("subject", "answers"), ("unit", "share"))] == 0.5
    assert found[("bike_monitor_harm_rentals_per_day", *cusum, ("subject", "answers"))] == 420
    assert found[("bike_monitor_verdicts", ("kind", "concept drift"), ("status", "changed"))] == 1
    assert found[("bike_monitor_verdicts", ("kind", "data drift"), ("status", "fine"))] == 1
    assert found[("bike_monitor_verdicts", ("kind", "model"), ("status", "not judged"))] == 1
    # What there is none of is a zero, and not missing.
    assert found[("bike_monitor_verdicts", ("kind", "data fault"), ("status", "changed"))] == 0
    # What could not be told has no number.
    assert not any("season winter" in dict(labels).values() for name, *labels in found if name == "bike_monitor_effect")
    assert found[("bike_monitor_status", ("status", "changed"))] == 1
    assert found[("bike_monitor_error_rentals", ("version", "7"))] == 31.5
    assert found[("bike_monitor_labels", ("state", "waiting"))] == 24
    assert found[("bike_monitor_log_lines", ("outcome", "damaged"))] == 2
    assert found[("bike_monitor_run_timestamp_seconds",)] == reported().at.timestamp()


def test_a_report_that_was_kept_is_told_alike(tmp_path):
    found = reported(measured("data drift", "temp"), measured("data fault", "hum", effect=math.nan))
    again = report.read(report.write(found, tmp_path))
    assert written(tmp_path / "kept", again) == written(tmp_path / "now", found)


def test_names_with_quotes_and_lines_are_escaped(tmp_path):
    found = written(tmp_path, reported(measured("data fault", 'a "new"\nweather \\')))
    assert any(dict(labels).get("subject") == 'a "new"\nweather \\' for _, *labels in found)


def test_the_file_is_replaced_as_a_whole_and_others_may_read_it(tmp_path):
    written(tmp_path, reported(measured("data fault", "temp")))
    found = written(tmp_path, reported())
    assert not any(name == "bike_monitor_verdict" for name, *_ in found)
    (only,) = (tmp_path / exposition.FOLDER).iterdir()
    assert stat.S_IMODE(only.stat().st_mode) & 0o044 == 0o044


@pytest.mark.parametrize("status", ["fine", "harmless", "not judged", "changed"])
def test_exactly_one_status_holds(tmp_path, status):
    found = written(tmp_path, dataclasses.replace(reported(), status=status))
    assert [labels for name, *labels in found if name == "bike_monitor_status" and found[(name, *labels)]] == [
        [("status", status)]
    ]
