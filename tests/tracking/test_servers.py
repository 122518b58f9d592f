"""The real MLflow server with a SQLite store, and the real `dvc`: `make test-tracking` gets both and runs these tests.

Where they are not there the tests are skipped and say so; where `TRACKING_SERVERS` names their environment, they must
be there.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bike_pipeline.data.spans import SpanStore
from tests.conftest import ROOT
from tests.lineage.world import FIRST, SECOND, Runs

pytestmark = pytest.mark.slow

PLACE = Path(os.environ.get("TRACKING_SERVERS", ROOT / ".tracking-servers"))
START_SECONDS = 120.0
# The interpreter's own settings for this project's libraries are nothing to another environment.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MLFLOW"))}


def program(name: str) -> str:
    """Return the path of a program of the servers' environment; skip where that was not made."""
    path = PLACE.absolute() / "bin" / name
    if not path.exists() and "TRACKING_SERVERS" not in os.environ:
        pytest.skip(f"{name} is not there: run `make test-tracking`")
    assert path.exists(), path
    return str(path)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Two pushed runs, whose pushed files are here."""
    runs = Runs(tmp_path_factory.mktemp("world")).two()
    for version in (FIRST, SECOND):
        folder = Path(runs.settings.serving_path) / str(version) / "variables"
        folder.mkdir(parents=True)
        (folder.parent / "saved_model.pb").write_bytes(b"graph of %d" % version)
        (folder / "variables.index").write_bytes(b"")
    return runs


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server with a SQLite store, on loopback."""
    mlflow, folder = program("mlflow"), tmp_path_factory.mktemp("mlflow")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    store = f"sqlite:///{folder}/mlflow.db"
    command = [mlflow, "server", "--backend-store-uri", store, "--artifacts-destination", str(folder / "artifacts")]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    quiet = {**ENVIRONMENT, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("wb") as log:
        # A group of its own: the server starts processes, and all of them must end.
        process = subprocess.Popen(
            command, cwd=folder, env=quiet, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    uri = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_SECONDS
        while not healthy(uri):
            assert process.poll() is None, (folder / "server.log").read_text(encoding="utf-8")
            assert time.monotonic() < deadline, (folder / "server.log").read_text(encoding="utf-8")
            time.sleep(0.2)
        yield uri
    finally:
        os.killpg(process.pid, 15)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()


def healthy(uri: str) -> bool:
    try:
        with urllib.request.urlopen(f"{uri}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def asked(server: str, path: str, **body: Any) -> Any:
    """Ask MLflow's REST API, without MLflow's client."""
    request = urllib.request.Request(f"{server}/api/2.0/mlflow/{path}")
    if body:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def track(runs: Runs, server: str, *arguments: str) -> Any:
    """Call `track` as a person does, and return what it printed."""
    command = [sys.executable, "-m", "bike_pipeline.cli", "track", "--json", *arguments]
    command += ["--set", f"workspace={runs.workspace}", "--set", f"tracking.mlflow.uri={server}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_real_server_takes_runs_once_with_artifacts_and_the_serving_alias(runs: Runs, server: str) -> None:
    first = track(runs, server, "run-1")
    assert (first["created"], first["registered"], first["serving"], first["notes"]) == (True, [FIRST], FIRST, [])
    second = track(runs, server)
    assert (second["run_id"], second["registered"], second["serving"]) == ("run-2", [SECOND], SECOND)
    again = track(runs, server, "run-1")
    assert (again["created"], again["registered"], again["serving"]) == (False, [], SECOND)
    assert again["mlflow_run"] == first["mlflow_run"]

    experiment = asked(server, "experiments/get-by-name?experiment_name=bike-demand")["experiment"]
    listed = asked(server, "runs/search", experiment_ids=[experiment["experiment_id"]])["runs"]
    assert sorted(run["info"]["run_name"] for run in listed) == ["run-1", "run-2"]
    data = next(run["data"] for run in listed if run["info"]["run_id"] == second["mlflow_run"])
    metrics = {entry["key"]: entry["value"] for entry in data["metrics"]}
    assert (metrics["mae"], metrics["season/1/rmse"]) == (40.0, 80.0)
    parameters = {entry["key"]: entry["value"] for entry in data["params"]}
    assert parameters["training.epochs"] == str(runs.settings.training.epochs)
    tags = {entry["key"]: entry["value"] for entry in data["tags"]}
    assert (tags["bike_pipeline.span"], tags["bike_pipeline.blessed"]) == ("2", "True")

    model = asked(server, "registered-models/alias?name=bike_demand&alias=serving")["model_version"]
    assert model["run_id"] == second["mlflow_run"]
    assert {"key": "bike_pipeline.pushed_version", "value": str(SECOND)} in model["tags"]
    files = asked(server, f"artifacts/list?run_id={second['mlflow_run']}&path=pushed/{SECOND}")["files"]
    assert [entry["path"] for entry in files] == [
        f"pushed/{SECOND}/saved_model.pb", f"pushed/{SECOND}/variables",
    ]  # fmt: skip
    place = f"{server}/get-artifact?run_uuid={second['mlflow_run']}&path="
    with urllib.request.urlopen(f"{place}decisions.json", timeout=30) as answer:
        assert json.load(answer)["decisions"][0]["reason"] == "mae, overall: 40.0"
    with urllib.request.urlopen(f"{place}pushed/{SECOND}/saved_model.pb", timeout=30) as answer:
        assert answer.read() == b"graph of %d" % SECOND


def test_the_real_dvc_pulls_every_version(runs: Runs, tmp_path: Path) -> None:
    dvc, project = program("dvc"), tmp_path / "project"
    project.mkdir()
    quiet = {**ENVIRONMENT, "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(tmp_path / "site")}

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=project, env=quiet, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    options = [
        f"workspace={runs.workspace}",
        f"tracking.dvc.folder={project}/data",
        f"tracking.dvc.remote={tmp_path}/r",
    ]
    settings = [part for option in options for part in ("--set", option)]
    own = [sys.executable, "-m", "bike_pipeline.cli", "data", "dvc", *settings]
    subprocess.run(own, cwd=ROOT, capture_output=True, timeout=300, check=True)
    run(dvc, "init", "--no-scm", "--quiet")
    run(dvc, "remote", "add", "--default", "spans", f"{tmp_path}/r")
    run(dvc, "pull", "data/span-0001/version-0001.dvc", "data/span-0002/version-0001.dvc")
    assert "up to date" in run(dvc, "status")
    pulled = SpanStore(str(project / "data"))
    for span in (1, 2):
        assert pulled.verify(span, 1).manifest == runs.spans.get(span, 1).manifest
    # DVC itself gives the same address to what it pulled.
    shutil.copytree(project / "data/span-0001/version-0001", project / "copy/version-0001")
    run(dvc, "add", "--quiet", "copy/version-0001")
    ours, theirs = (
        yaml.safe_load((project / folder / "version-0001.dvc").read_text(encoding="utf-8"))["outs"]
        for folder in ("data/span-0001", "copy")
    )
    assert ours == theirs
