"""The served model through LIT and the Responsible AI Toolbox, each in the environment that `make` gives it.

The tests are skipped, and say so, where that environment is not there; if `LIT` or `RAI` names it, it must be.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bike_pipeline.data.embedded_dataset import embedded_bytes
from bike_pipeline.serving import records
from bike_pipeline.serving.clients import connect, connection
from bike_pipeline.settings import load_settings
from tests.conftest import ROOT
from tests.database_servers import free_port
from tests.serving.running import Running

pytestmark = pytest.mark.slow

START_SECONDS = 120.0


def python(name: str) -> str:
    """Return the interpreter of an environment."""
    place = Path(os.environ.get(name.upper(), ROOT / f".{name}")).absolute() / "bin" / "python"
    if not place.exists() and name.upper() not in os.environ:
        pytest.skip(f"the environment .{name} is not there: run `make test-{name}`")
    return str(place)


@pytest.fixture(scope="module")
def hours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every 97th hour of the embedded data, with labels."""
    header, *lines = embedded_bytes().decode().splitlines()
    path = tmp_path_factory.mktemp("hours") / "hours.csv"
    path.write_text("\n".join([header, *lines[::97]]) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def lit(model_server: Running, hours: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where LIT listens."""
    port, log = free_port(), tmp_path_factory.mktemp("lit") / "log"
    command = [python("lit"), "tools/lit_server.py", str(hours), "--server", model_server.rest, "--port", str(port)]
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, "PYTHONPATH": "."}, stdout=file, stderr=subprocess.STDOUT
        )
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + START_SECONDS
    try:
        while not answers(address):
            assert process.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait()


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as found:
            return b"<html" in found.read()
    except urllib.error.URLError:
        return False


def asked(address: str, what: str, body: Any = None) -> Any:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/{what}", json.dumps(body or {}).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as found:
        return json.loads(found.read())


def test_lit_shows_the_rows_of_the_file(lit: str, hours: Path) -> None:
    found = asked(lit, "get_dataset?dataset_name=hours")
    with hours.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["cnt"]) for row in rows] == [one["data"]["cnt"] for one in found]
    assert [int(row["hr"]) for row in rows] == [one["data"]["hr"] for one in found]


def test_lit_answers_what_the_server_answers(lit: str, hours: Path, model_server: Running) -> None:
    inputs = asked(lit, "get_dataset?dataset_name=hours")[:7]
    # As somebody edits a row in the page.
    inputs[0]["data"]["hr"] = 17
    found = asked(lit, "get_preds?model=served&dataset_name=hours&requested_fields=predicted", {"inputs": inputs})
    chosen = records.parse(hours.read_text(encoding="utf-8"), "hours")[:7]
    columns = records.to_columns([{**chosen[0], "hr": "17"}, *chosen[1:]], "hours")
    with connect(connection(load_settings(), model_server.rest)) as client:
        expected = client.predict(columns)
    assert [one["predicted"] for one in found] == pytest.approx([float(value) for value in expected], rel=1e-5)


def looked(hours: Path, address: str, output: Path) -> subprocess.CompletedProcess[str]:
    command = [python("rai"), "tools/rai_insights.py", str(hours), "--server", address, "--output", str(output)]
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_toolbox_explains_the_served_model(hours: Path, model_server: Running, tmp_path: Path) -> None:
    done = looked(hours, model_server.rest, tmp_path / "insights")
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "insights" / "summary.json").read_text(encoding="utf-8"))
    assert {"hr", "temp", "workingday"} < set(summary["importance"])
    assert max(summary["importance"].values()) > 0
    assert summary["error_tree"][0]["size"] == 90
    assert json.loads((tmp_path / "insights" / "meta.json").read_text(encoding="utf-8"))


def test_the_toolbox_without_a_server_says_so_in_a_line(hours: Path, tmp_path: Path) -> None:
    done = looked(hours, f"127.0.0.1:{free_port()}", tmp_path / "insights")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "insights").exists()


def test_rows_without_labels_are_refused_by_the_toolbox(model_server: Running, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    header = "dteday,hr,holiday,weathersit,temp,atemp,hum,windspeed"
    rows.write_text(f"{header}\n2012-06-01,8,0,1,0.6,0.58,0.5,0.2\n", encoding="utf-8")
    done = looked(rows, model_server.rest, tmp_path / "insights")
    assert done.returncode == 1
    assert "a row has no label 'cnt'" in done.stderr
