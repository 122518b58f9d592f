"""Runs told to MLflow: its own client and its own SQLite store, and servers that are down, silent or of another kind.

`test_servers.py` asks a real server over HTTP.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bike_pipeline.commands.train import track_command
from bike_pipeline.errors import ConfigurationError, MissingExtraError, TrackingError
from bike_pipeline.lineage.queries.tracking_payload import tracking_payload
from bike_pipeline.lineage.store.metadata_store import Lineage
from bike_pipeline.settings import Settings, load_settings
from bike_pipeline.tracking import hooks
from bike_pipeline.tracking.mlflow_sender import Message, send
from tests.lineage.world import FIRST, SECOND, Runs

REGISTERED = "bike_demand"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Two pushed runs, whose pushed files are here; only read."""
    runs = Runs(tmp_path_factory.mktemp("world")).two()
    for version in (FIRST, SECOND):
        folder = Path(runs.settings.serving_path) / str(version)
        folder.mkdir(parents=True)
        (folder / "saved_model.pb").write_bytes(b"graph of %d" % version)
    return runs


def sending_to(runs: Runs, uri: str, *more: str) -> Settings:
    return load_settings(None, (f"workspace={runs.workspace}", f"tracking.mlflow.uri={uri}", *more))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with an empty store: its tables take seconds to make."""
    return tmp_path_factory.mktemp("mlflow") / "mlflow.db"


class Kept:
    """What MLflow's SQLite file holds, read without MLflow."""

    def __init__(self, database: Path) -> None:
        self._connection = sqlite3.connect(database)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(query).fetchall()

    def alias(self) -> str:
        ((pushed,),) = self.rows(
            "SELECT t.value FROM registered_model_aliases a JOIN model_version_tags t"
            " ON t.name = a.name AND t.version = a.version AND t.key = 'bike_pipeline.pushed_version'"
            " WHERE a.alias = 'serving'"
        )
        return str(pushed)


@pytest.mark.slow
def test_runs_are_told_once_and_the_newest_push_serves(runs: Runs, database: Path) -> None:
    settings = sending_to(runs, f"sqlite:///{database}")
    arguments = ["--set", f"workspace={runs.workspace}", "--set", f"tracking.mlflow.uri=sqlite:///{database}"]
    second = json.loads(CliRunner().invoke(track_command, [*arguments, "--json"]).output)
    assert (second["run_id"], second["created"], second["registered"], second["serving"]) == (
        "run-2", True, [SECOND], SECOND,
    )  # fmt: skip
    assert second["notes"] == []
    # The older one later: it is registered, and the alias does not go back.
    done = CliRunner().invoke(track_command, [*arguments, "run-1"])
    assert done.exit_code == 0, done.output
    assert f"registered: version {FIRST}; serving: version {SECOND}" in done.output
    kept = Kept(database)
    before = kept.rows("SELECT * FROM metrics ORDER BY run_uuid, key")
    told = hooks.after_run(settings, "run-2")
    assert "(was there already)" in told
    assert "registered" not in told
    assert kept.rows("SELECT * FROM metrics ORDER BY run_uuid, key") == before

    assert kept.rows("SELECT name, status FROM runs ORDER BY name") == [("run-1", "FINISHED"), ("run-2", "FINISHED")]
    assert kept.rows("SELECT name FROM experiments WHERE name != 'Default'") == [("bike-demand",)]
    of_second = f"run_uuid = '{second['mlflow_run']}'"
    expected = tracking_payload(Lineage(runs.recorder.store), "run-2")
    assert dict(kept.rows(f"SELECT key, value FROM metrics WHERE {of_second}")) == expected.metrics
    assert dict(kept.rows(f"SELECT key, value FROM params WHERE {of_second}")) == expected.parameters
    tags = dict(kept.rows(f"SELECT key, value FROM tags WHERE {of_second}"))
    assert expected.tags.items() <= tags.items()
    assert kept.alias() == str(SECOND)
    ((place,),) = kept.rows(f"SELECT artifact_uri FROM runs WHERE {of_second}")
    artifacts = Path(place.removeprefix("file://"))
    assert artifacts.is_relative_to(database.parent / "artifacts")
    assert json.loads((artifacts / "decisions.json").read_text(encoding="utf-8")) == expected.decisions
    ((source,),) = kept.rows(f"SELECT source FROM model_versions WHERE run_id = '{second['mlflow_run']}'")
    assert source == f"{place}/pushed/{SECOND}"
    assert (artifacts / "pushed" / str(SECOND) / "saved_model.pb").read_bytes() == b"graph of %d" % SECOND


@pytest.mark.slow
def test_a_run_that_was_cut_off_is_filled_up_and_pushes_without_files_are_told(
    runs: Runs, database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Set by the sender in its own process; taken back here at the end of the test.
    for name in ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
        monkeypatch.setenv(name, "5")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    copy = tmp_path / "copy.db"
    if database.exists():
        shutil.copy(database, copy)
    told = asdict(tracking_payload(Lineage(runs.recorder.store), "run-1"))
    message = Message(f"sqlite:///{copy}", "other", REGISTERED, told)
    first = send(message)
    assert first.created
    with sqlite3.connect(copy) as connection:
        connection.execute("UPDATE runs SET status = 'RUNNING' WHERE run_uuid = ?", (first.mlflow_run,))
        connection.execute("DELETE FROM metrics WHERE key = 'mae' AND run_uuid = ?", (first.mlflow_run,))
    again = send(message)
    assert (again.mlflow_run, again.created) == (first.mlflow_run, True)
    metrics = Kept(copy).rows(f"SELECT key, value FROM metrics WHERE run_uuid = '{first.mlflow_run}'")
    assert dict(metrics)["mae"] == 30.0
    assert len(metrics) == len(dict(metrics))
    # Another name in the registry, and files that are gone from this machine.
    (push,) = told["pushes"]
    moved = {**told, "pushes": [{**push, "destination": "/nowhere/at/all"}]}
    sent = send(Message(message.uri, "other", "gone", moved))
    assert (sent.registered, sent.serving) == ([FIRST], FIRST)
    assert "not on this machine" in sent.notes[0]


def closed_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def test_a_server_that_is_down_is_one_line_and_no_error(runs: Runs, capfd: pytest.CaptureFixture[str]) -> None:
    uri = f"http://127.0.0.1:{closed_port()}"
    line = hooks.after_run(sending_to(runs, uri), "run-1")
    assert line.startswith(f"warning: not tracked: {uri}: MLflow cannot be reached")
    assert "bike-pipeline track" in line
    assert "\n" not in line
    assert line.removeprefix("warning: not tracked: ") in capfd.readouterr().err


@contextmanager
def answering(status: int | None) -> Iterator[str]:
    """A server that answers everything with a status; with None, it takes requests and never answers."""
    released = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            if status is None:
                released.wait(60)
                return
            content = b"<html>not MLflow</html>"
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        released.set()
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_server_that_never_answers_is_given_up(runs: Runs) -> None:
    with answering(None) as uri, pytest.raises(TrackingError, match="within 2 seconds"):
        hooks.send_to_mlflow(
            sending_to(runs, uri, "tracking.mlflow.timeout_seconds=2"), tracking_payload(Lineage(runs.recorder.store))
        )


@pytest.mark.parametrize("status", [200, 403])
def test_a_server_that_is_no_mlflow_or_refuses_is_one_line(runs: Runs, status: int) -> None:
    with answering(status) as uri:
        line = hooks.after_run(sending_to(runs, uri), "run-1")
    assert line.startswith(f"warning: not tracked: {uri}: MLflow did not take the run (")
    assert "Traceback" not in line
    assert "\n" not in line


def test_a_damaged_record_or_a_lost_store_is_one_line(runs: Runs, tmp_path: Path) -> None:
    settings = load_settings(None, (f"workspace={tmp_path}", "tracking.mlflow.uri=sqlite:///x.db"))
    assert hooks.after_run(settings, "run-1").startswith("warning: not tracked: ")
    assert hooks.after_run(sending_to(runs, "sqlite:///x.db"), "run-9").startswith("warning: not tracked: there is no")


def test_without_a_server_nothing_is_told(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(hooks, "send_to_mlflow", None)
        assert hooks.after_run(runs.settings, "run-1") == ""
    with pytest.raises(ConfigurationError, match="no MLflow server is named"):
        CliRunner().invoke(
            track_command, ["--set", f"workspace={runs.workspace}"], catch_exceptions=False, standalone_mode=False
        )


def test_without_the_extra_it_says_how_to_get_it(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(hooks.extras.EXTRAS, "tracking", ("no_such_module",))
    settings = sending_to(runs, "sqlite:///x.db")
    with pytest.raises(MissingExtraError, match="EXTRAS=tracking"):
        hooks.send_to_mlflow(settings, tracking_payload(Lineage(runs.recorder.store)))
    assert "EXTRAS=tracking" in hooks.after_run(settings, "run-1")


def test_behind_a_proxy_no_direct_connection_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    uri = f"http://127.0.0.1:{closed_port()}"
    with pytest.raises(TrackingError, match="cannot be reached"):
        hooks._connect(uri)
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:3128")
    hooks._connect(uri)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(TrackingError, match="cannot be reached"):
        hooks._connect(uri)
