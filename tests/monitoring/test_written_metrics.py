"""`monitor metrics`: both files, as the command and a program write them, and as Prometheus' own tool reads them."""

from __future__ import annotations

import json
import subprocess

import pytest
from click.testing import CliRunner

from bike_pipeline import Workspace
from bike_pipeline.cli import command
from bike_pipeline.errors import MetadataError, MonitoringError
from bike_pipeline.monitoring import report
from tests.lineage.world import Runs
from tests.monitoring.reporting import measured, reported
from tests.monitoring_servers import command as program


@pytest.fixture
def world(tmp_path):
    return Runs(tmp_path / "workspace").two()


def called(world):
    return CliRunner().invoke(command, ["monitor", "metrics", "--json", "--set", f"workspace={world.workspace}"])


def test_the_command_writes_both_files(world):
    first = called(world)
    assert first.exit_code == 0, first.output
    assert json.loads(first.stdout)["monitor"] is None
    report.write(reported(measured("data drift", "temp")), world.settings.monitoring_path)
    made = Workspace(world.workspace).write_metrics()
    assert made.pipeline.parent == made.monitor.parent == world.settings.monitoring_path / "metrics"
    assert 'subject="temp"' in made.monitor.read_text()
    for path in (made.pipeline, made.monitor):
        checked = subprocess.run(
            [*program("promtool"), "check", "metrics"], input=path.read_bytes(), capture_output=True, check=False
        )
        assert checked.returncode == 0, checked.stderr


def test_a_report_that_was_changed_is_one_error_and_nothing_is_written(world):
    file = report.write(reported(), world.settings.monitoring_path)
    file.write_text(file.read_text().replace('"rows": 168', '"rows": 169'))
    with pytest.raises(MonitoringError):
        Workspace(world.workspace).write_metrics()
    assert not (world.settings.monitoring_path / "metrics").exists()


def test_without_records_there_is_one_error(tmp_path):
    with pytest.raises(MetadataError, match="there is no metadata store"):
        Workspace(tmp_path / "nothing").write_metrics()
