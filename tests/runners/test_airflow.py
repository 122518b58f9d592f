"""The DAG of continuous training, read and run by the real Airflow, over the real command line."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("AIRFLOW" not in os.environ, reason="`make test-airflow` makes Airflow's environment"),
]


class Airflow:
    """An Airflow with a database of its own, and a project whose ledger its DAG asks."""

    def __init__(self, folder):
        self.project = folder / "project"
        (self.project / "uploads").mkdir(parents=True)
        config = folder / "config.yaml"
        # One row alone is worth a run here.
        policy, sources = "policy: {least_new_rows: 0}", f"storage: {{sources: [{self.project / 'uploads'}]}}"
        config.write_text(f"retraining: {{triggers: [storage], {policy}, {sources}}}\n")
        self._environment = {
            "PATH": os.defpath,
            "HOME": str(folder),
            "AIRFLOW_HOME": str(folder / "airflow"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "runners" / "airflow"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "BIKE_PIPELINE_COMMAND": str(Path(sys.executable).with_name("bike-pipeline")),
            "BIKE_PIPELINE_PROJECT": str(self.project),
            "BIKE_PIPELINE_CONFIG": str(config),
        }
        self.call("db", "migrate")

    def call(self, *arguments, code=0, **environment):
        program = ROOT / os.environ["AIRFLOW"] / "bin" / "airflow"
        done = subprocess.run(
            [program, *arguments], env=self._environment | environment, capture_output=True, text=True, check=False
        )
        said = done.stdout + done.stderr
        assert done.returncode == code, said
        return said

    def run(self, conf=None, code=0, **environment):
        """Run the DAG once; return what was logged, and the states of its tasks."""
        conf = ["--conf", json.dumps(conf)] if conf else []
        said = self.call("dags", "test", "bike_pipeline", *conf, code=code, **environment)
        with closing(sqlite3.connect(Path(self._environment["AIRFLOW_HOME"], "airflow.db"))) as database:
            newest = "SELECT run_id FROM dag_run ORDER BY id DESC LIMIT 1"
            return said, dict(database.execute(f"SELECT task_id, state FROM task_instance WHERE run_id = ({newest})"))


@pytest.fixture(scope="module")
def airflow(tmp_path_factory):
    return Airflow(tmp_path_factory.mktemp("airflow"))


def test_airflow_reads_the_dag_and_finds_nothing_wrong(airflow):
    (dag,) = json.loads(airflow.call("dags", "list", "--local", "--output", "json").splitlines()[-1])
    assert dag["dag_id"] == "bike_pipeline"


def test_each_change_has_one_run_however_often_airflow_looks(airflow):
    said, tasks = airflow.run()
    assert tasks == {"watch": "skipped", "judge": "skipped"}
    assert "nothing to do" in said
    (airflow.project / "uploads" / "wrong.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    said, tasks = airflow.run()
    assert tasks == {"watch": "success", "judge": "success"}
    assert "run 1: refused" in said
    _, tasks = airflow.run()
    assert tasks == {"watch": "skipped", "judge": "skipped"}


def test_a_program_that_is_not_there_or_fails_is_no_success(airflow, tmp_path):
    broken = tmp_path / "broken.yaml"
    broken.write_text("retraining: {runner: 7, unknown: 8}\n", encoding="utf-8")
    said, tasks = airflow.run(code=1, BIKE_PIPELINE_CONFIG=str(broken))
    assert tasks == {"watch": "failed", "judge": "upstream_failed"}
    assert "ended with exit code 3" in said


def test_a_run_that_somebody_asked_for_and_that_fails_fails_the_dag(airflow, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "config.yaml").write_text(f"data: {{store: {tmp_path / 'file'}}}\n", encoding="utf-8")
    config = str(tmp_path / "config.yaml")
    said, tasks = airflow.run({"because": "somebody asked"}, code=1, BIKE_PIPELINE_CONFIG=config)
    assert tasks == {"watch": "success", "judge": "failed"}
    assert ": failed, " in said
    assert "cannot list it" in said
