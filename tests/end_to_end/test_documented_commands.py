"""The commands of the README and of docs/ are typed on a workspace with two models, as a reader would.

`tests/test_documented_commands.py` reads all of them; here are those that can run on one machine in little time. Every
other one is named with the reason and, where there is one, with the test that runs it.
"""

from __future__ import annotations

import csv
import datetime as dt
import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from bike_pipeline import features
from tests.data import mapped
from tests.documented import ROOT, typed
from tests.end_to_end.conftest import Halves

pytestmark = pytest.mark.slow

# In this order.
RUN = (
    "bike-pipeline run",
    "bike-pipeline run --runner beam",
    "bike-pipeline models",
    "bike-pipeline runs",
    "bike-pipeline data list",
    "bike-pipeline data verify",
    "bike-pipeline label suggest hours.csv --count 48 --output to-label.csv",
    "bike-pipeline label suggest",
    "bike-pipeline verify",
    "bike-pipeline doctor",
    "bike-pipeline config show",
    "bike-pipeline config schema",
    "bike-pipeline serve --openapi",
    "bike-pipeline explain-run",
    "bike-pipeline explain-run 20260101T000000-aaaaaa --output run.html",
    "bike-pipeline lineage --run 20261124T073846-ce1584",
    "bike-pipeline lineage --format html --output lineage.html",
    "bike-pipeline lineage --format card --output model-card.html",
    "bike-pipeline lineage --format dot | dot -Tsvg > lineage.svg",
    "bike-pipeline evidence",
    "bike-pipeline verify workspace/evidence/1795430256 --public-key workspace/keys/signing.pub",
    "bike-pipeline gc --keep-blessed 2 --keep-days 14 --dry-run",
    "bike-pipeline predict --intervals rentals.csv",
    "bike-pipeline predict --last-day rentals.csv hours.csv",
    "bike-pipeline predict-batch hours.csv --output predictions",
    "bike-pipeline feedback update rentals.csv",
    "bike-pipeline feedback show",
    "bike-pipeline feedback show --at 2013-03-01",
    "bike-pipeline feedback rollback",
    "bike-pipeline monitor ingest",
    "bike-pipeline monitor ingest rentals.csv",
    "bike-pipeline monitor metrics",
    "bike-pipeline explain --html model.html",
    "bike-pipeline push edge",
    "bike-pipeline push edge --channel beta --model 1795576597",
    "bike-pipeline export-page page.html --server http://192.168.1.7:8501",
    "bike-pipeline rollback [--to VERSION]",
    "bike-pipeline promote [VERSION]",
    "bike-pipeline history",
    "bike-pipeline api-key create dashboard --days 90",
    "bike-pipeline api-key list",
    "bike-pipeline api-key revoke 6c6cf0f3",
    "bike-pipeline serving-config",
    "bike-pipeline serving-config --check",
    "bike-pipeline manifests",
    "bike-pipeline manifests --check",
    "bike-pipeline export --formats tflite_float32,c_source --output out",
    "bike-pipeline compile --config configs/kubeflow.yaml",
    "bike-pipeline compile --config configs/vertex.yaml --target vertex",
    "bike-pipeline data dvc",
    "bike-pipeline data ingest rentals-2013.csv",
    "bike-pipeline data ingest rentals.csv --set tracking.dvc.enabled=true",
    'bike-pipeline data withdraw 2 2 --because "the data gate refused it"',
    "bike-pipeline data restore 2 2",
    "bike-pipeline data ingest train.csv --map kaggle",
    "bike-pipeline data ingest trips/ --map capital-bikeshare-trips --weather open-meteo.csv",
    'bike-pipeline data ingest sqlite:///rentals.db --query "SELECT * FROM hourly ORDER BY dteday, hr"',
)
ASKED = (
    "bike-pipeline predict --server models.example.org:8501 --version 1795430256 hours.csv",
    "bike-pipeline predict --server grpc://models.example.org --label stable hours.csv > predicted.csv",
)
# What a page gives as an example, and what it is on this workspace: `{…}` only it knows.
EXAMPLES = {
    "20260101T000000-aaaaaa": "{run}",
    "20261124T073846-ce1584": "{run}",
    "1795576597": "{version}",
    "1795430256": "{version}",
    " [--to VERSION]": "",
    "[VERSION]": "{version}",
    "6c6cf0f3": "{key}",
    "data withdraw 2 2": "data withdraw 2 1",
    "data restore 2 2": "data restore 2 1",
    " | dot -Tsvg > lineage.svg": "",
    " > predicted.csv": "",
    "grpc://models.example.org": "grpc://127.0.0.1:{grpc}",
    "models.example.org:8501": "127.0.0.1:{rest}",
    "127.0.0.1:8501": "127.0.0.1:{rest}",
}
# Those of a block that are not run here, by how they begin, and why.
TRAINS = "trains anew, which takes a minute and more; "
CLUSTER = "needs a cluster; tests/runners/kubeflow/client/test_submit.py runs it against a server of the same API"
DATABASE = "needs a database server; tests/end_to_end/test_metadata_servers.py runs it"
NOT_RUN = {
    "make run": "tests/end_to_end/test_readme.py runs it",
    "make retrain": "tests/end_to_end/test_readme.py runs it",
    "bike-pipeline run --demo first": "tests/end_to_end/conftest.py runs it for all that begin with it",
    "curl -X PUT --json @configs/monitoring/opensearch": "tests/monitoring/test_opensearch.py sends it to a real node",
    "bike-pipeline monitor demo": "tests/end_to_end/test_monitor.py calls it",
    "bike-pipeline monitor run": "tests/end_to_end/test_monitor.py calls it",
    "bike-pipeline explain 4d78": "asks for a request; tests/end_to_end/test_monitor.py calls it",
    'bike-pipeline predict-batch "gs://': "needs a bucket and Dataflow",
    "bike-pipeline predict-batch hours/": "tests/serving/batch calls it",
    "bike-pipeline watch --set": "goes on until it is ended; its trigger: tests/retraining/triggers/test_storage.py",
    "bike-pipeline watch --listen": "goes on until it is ended; tests/retraining/test_listener.py asks it",
    "bike-pipeline watch --once": "tests/end_to_end/test_retraining.py calls it",
    "bike-pipeline retrain --because": "tests/end_to_end/test_retraining.py calls it",
    "bike-pipeline triggers list": "tests/end_to_end/test_retraining.py calls it",
    "bike-pipeline rollout": "tests/commands/test_rollout.py calls each of them",
    "make demo": "takes minutes, so .ci/run calls it by itself; its parts: tests/tools/test_demo.py",
    "bike-pipeline triggers price": "tests/end_to_end/test_retraining.py calls it",
    "bike-pipeline simulate --weekly": "trains a model for each week; tests/use_cases/test_simulation.py calls it",
    "make test": "running all tests from within a test would never end",
    "make setup": "tests/set_up; installs packages",
    "make notebooks": "takes minutes; tests/end_to_end/test_notebooks_on_the_story.py runs it",
    "make flink ARGS=": "fetches from Maven; tests/test_documented_commands.py reads what it would fetch",
    "make load-generators": "fetches Debian packages",
    "make airflow-environment": "an environment of its own; CI runs it",
    "make test-airflow": "an environment of its own; CI runs it",
    "REGENERATE_GOLDEN=1 make": "writes into the checkout",
    "BIKE_SERVING_REST=127.0.0.1:8501": "asks another server; tests/serving/conformance runs against the embedded one",
    "bike-pipeline run --runner beam --config": "needs a job server; tests/end_to_end/test_beam_engines.py runs it",
    "bike-pipeline run --runner kubeflow --local": "takes minutes; tests/end_to_end/test_compiled_spec.py runs it",
    "bike-pipeline run --config configs/busy.yaml": TRAINS + "tests/end_to_end/test_busy.py runs it",
    "bike-pipeline predict --config configs/busy.yaml": "tests/end_to_end/test_busy.py runs it",
    "bike-pipeline run --config my.yaml": TRAINS + "tests/end_to_end/test_options.py runs such a one",
    "bike-pipeline run --config team.yaml": DATABASE,
    "bike-pipeline runs --config team.yaml": DATABASE,
    "bike-pipeline run --set training.strategy": TRAINS + "tests/modeling/test_multi_worker.py trains so",
    "bike-pipeline run --set tuning": TRAINS + "tests/end_to_end/test_options.py runs a small search and takes it over",
    "bike-pipeline run --set tracking.mlflow.uri": "needs a server; tests/tracking/test_servers.py runs it",
    "bike-pipeline track": "needs a server; tests/tracking/test_servers.py runs it",
    "bike-pipeline compress": "takes minutes; tests/commands/test_compress.py runs it",
    "bike-pipeline export": "exports every format, which takes minutes; tests/commands/test_export.py runs it",
    "bike-pipeline parity": "exports every format, which takes minutes; tests/commands/test_export.py runs it",
    "bike-pipeline submit": CLUSTER,
    "bike-pipeline schedule": CLUSTER,
    "bike-pipeline runs --cluster": CLUSTER,
    "bike-pipeline models --cluster": CLUSTER,
    "bike-pipeline trainjob": "its places are on a cluster's volume; tests/runners/kubeflow/test_trainjob.py runs it",
    "bike-pipeline predict --server 127.0.0.1 '{": "leaves values out; tests/commands/test_predict.py runs such a one",
    "bike-pipeline predict '{": "tests/end_to_end/test_readme.py runs it",
    "bike-pipeline bench-serving": "needs a quiet machine; tests/benchmarks/test_load.py runs it",
    "bike-pipeline serve": "goes on until it is stopped; tests/serving/server runs it",
    "bike-pipeline gateway": "goes on until it is stopped; tests/rollout/gateway runs it, and --print too",
    "bike-pipeline monitor sidecar": "goes on until it is stopped; tests/end_to_end/test_sidecars.py runs it",
    'bike-pipeline data ingest "feast://': "needs Feast's environment; tests/data/sources/test_feast.py calls it",
    "bike-pipeline data feast-online": "needs Feast's environment; tests/data/sources/test_feast.py calls it",
    "make lit": "goes on until it is stopped; tests/serving/server/test_explorers.py starts it",
    "make rai": "goes on until it is stopped; tests/serving/server/test_explorers.py calls it",
    "make federated": "takes minutes; tests/federated/test_flower.py runs a small federation",
    "python -m bike_pipeline.federated": "goes on until all are there; tests/federated/test_flower.py runs both",
    "python bike-edge.pyz": "on a device; tests/end_to_end/test_edge_of_the_story.py runs it",
    "kubectl": "needs a cluster",
    "docker": "needs a container engine",
    "model_signing": "tests/model_registry/test_model_signing_tool.py runs it in an environment of its own",
    "dvc": "tests/tracking/test_servers.py runs it in an environment of its own",
    "git clone": "clones over the network",
    "export": "sets a variable of the shell",
    "source": "the shell's own",
    ".venv/bin/pre-commit": "writes into the checkout",
}


@dataclass
class Place:
    """A folder with a workspace, and everything that the pages take for granted in it."""

    folder: Path

    def call(self, line: str) -> subprocess.CompletedProcess[str]:
        """Type a line there and wait for its end."""
        words = shlex.split(line)
        program = [sys.executable, "-m", "bike_pipeline.cli"] if words[0] == "bike-pipeline" else [words[0]]
        return subprocess.run(
            [*program, *words[1:]],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def known(self) -> dict[str, str]:
        """What only this workspace knows: its newest pushed version and run, and a key."""
        served = self.folder / "workspace" / "serving" / "bike_demand"
        version = max((path.name for path in served.iterdir() if path.name.isdigit()), key=int)
        run = json.loads(self.call("bike-pipeline runs --json").stdout)[0]["run_id"]
        key = next(iter(re.findall(r"\b[0-9a-f]{8}\b", self.call("bike-pipeline api-key list").stdout)), "")
        return {"version": version, "run": run, "key": key}

    def type_all(self, documented: Iterable[str], **ports: int) -> dict[str, str]:
        """Type what pages tell, one after the other, and return what each answers; the first that fails fails here."""
        answers = {}
        for text in documented:
            line = text
            for example, meant in EXAMPLES.items():
                line = line.replace(example, meant)
            if line != text:
                for name, value in {**self.known(), **ports}.items():
                    line = line.replace(f"{{{name}}}", str(value))
            done = self.call(line)
            assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
            assert "Traceback" not in done.stderr, text
            answers[text] = done.stdout
        return answers


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, run_halves: Halves) -> Place:
    """Two runs, so that there is a model to go back to, and the files that the pages name."""
    here = Place(tmp_path_factory.mktemp("reader"))
    prepare(here.folder)
    run_halves.copied(2, here.folder / "workspace")
    return here


def prepare(folder: Path) -> None:
    """Write the files that the pages take for granted: the shipped settings, a new month, hours to ask about."""
    shutil.copytree(ROOT / "configs", folder / "configs")
    rows = list(_next_month(folder))
    for name in ("rentals-2013.csv", "rentals.csv", "hours.csv"):
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    (folder / "train.csv").write_bytes(mapped.text(mapped.kaggle("2013-03-01", 240)))
    (folder / "trips").mkdir()
    begins = [(f"{hour:%Y-%m-%d %H:10:00}", "member") for hour in mapped.hours("2013-04-01", 240)]
    (folder / "trips" / "2013-04.csv").write_bytes(mapped.text(mapped.new_trips(begins)))
    weather = mapped.weather("2013-04-01", 240)
    (folder / "open-meteo.csv").write_bytes(mapped.text(weather, before=mapped.OPEN_METEO))
    with closing(sqlite3.connect(folder / "rentals.db")) as database:
        kinds = {"int": "INTEGER", "float": "REAL", "date": "TEXT"}
        columns = ", ".join(f"{name} {kinds[features.BY_NAME[name].kind]}" for name in rows[0])
        database.execute(f"CREATE TABLE hourly ({columns})")
        marks = ", ".join("?" * len(rows[0]))
        database.executemany(f"INSERT INTO hourly VALUES ({marks})", [list(row.values()) for row in rows])
        database.commit()


@pytest.fixture(scope="module")
def ports(place: Place) -> Iterator[dict[str, int]]:
    """The ports of `bike-pipeline serve`, with the version label that a page asks for."""
    version = place.known()["version"]
    line = "serve --rest-port 0 --grpc-port 0 --json --set serving.server.version_policy=all --set"
    process = subprocess.Popen(
        [sys.executable, "-m", "bike_pipeline.cli", *line.split(), f"serving.server.labels={{stable: {version}}}"],
        cwd=place.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        told = json.loads(process.stdout.readline())
        yield {name: int(told[name].rpartition(":")[2]) for name in ("rest", "grpc")}
    finally:
        process.terminate()
        process.wait(timeout=60)


def _next_month(folder: Path) -> Iterator[dict[str, str]]:
    """Yield January 2012 as if it were January 2013."""
    from bike_pipeline.data.embedded_dataset import split_demo

    _, second = split_demo(folder / "uploads")
    for row in csv.DictReader(second.open(encoding="utf-8")):
        day = dt.date.fromisoformat(row["dteday"]).replace(year=2013) if row["mnth"] == "1" else None
        if day is None:
            return
        working = int(day.isoweekday() <= 5 and row["holiday"] == "0")
        calendar = {
            "dteday": day.isoformat(),
            "yr": "2",
            "weekday": str(day.isoweekday() % 7),
            "workingday": str(working),
        }
        yield {**row, **calendar}


def test_every_command_of_a_block_is_run_or_named_with_a_reason() -> None:
    commands = {command.text for command in typed() if command.in_block}
    run = {*RUN, *ASKED}
    left = [text for text in commands - run if not any(map(text.startswith, (*NOT_RUN, "curl -d")))]
    assert not left
    known = {command.text for command in typed()}
    assert run <= known, run - known
    assert [start for start in NOT_RUN if not any(text.startswith(start) for text in commands)] == []
    for reason in NOT_RUN.values():
        for named in re.findall(r"tests/[\w./]*\w", reason):
            assert (ROOT / named).exists(), named


def test_the_commands_of_the_pages_do_what_they_say(place: Place) -> None:
    place.type_all(RUN)
    for written in (
        "run.html",
        "lineage.html",
        "model-card.html",
        "out",
        "to-label.csv",
        "configs/serving/compose.yaml",
        "workspace/kubeflow/bike-demand.json",
    ):
        assert (place.folder / written).exists(), written


def test_the_documented_questions_are_answered_by_the_server(place: Place, ports: dict[str, int]) -> None:
    answers = place.type_all(ASKED, **ports)
    for answer in answers.values():
        assert answer.splitlines()[0].endswith(",predicted_cnt")
        assert len(answer.splitlines()) > 600
    if shutil.which("curl") is None:
        pytest.skip("curl is missing")
    (curl,) = (command.text for command in typed() if command.text.startswith("curl -d"))
    ((answer),) = json.loads(place.type_all([curl], **ports)[curl])["predictions"]
    assert answer > 0
