"""`runs` and `models`, on a metadata store written by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from ml_metadata.proto import metadata_store_pb2 as pb

from bike_pipeline.commands.lineage import runs_command
from bike_pipeline.commands.models import models_command
from bike_pipeline.errors import MetadataError
from bike_pipeline.model_registry import ModelRegistry, layout
from tests.recording import Recorder

# As long as the real ones: a path without a blank, in a workspace deep below a home folder.
REFUSED = (
    "span 3 is refused: 'temp' in drift: the distance is too high. Report: /home/somebody/projects/bike-sharing/"
    "checkouts/2026/workspace/artifacts/DataGate/report/refused/a-rather-long-name-without-any-blank-in-it/7.json."
)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace with a pushed model, a run from the cache, a refused candidate and a stopped run."""
    recorder = Recorder(tmp_path / "metadata.sqlite")
    examples = recorder.artifact("Examples", span=2, version=3)
    recorder.execution("CsvExampleGen", "20260101T000000-aaaaaa", outputs={"examples": examples})
    first, second = (recorder.artifact("Model", f"/models/{n}") for n in (1, 2))
    recorder.execution("Trainer", "20260101T000000-aaaaaa", {"examples": examples}, {"model": first})
    for run, model, blessed, mae in (
        ("20260101T000000-aaaaaa", first, 1, 30.5),
        ("20260102T000000-bbbbbb", second, 0, 99.25),
    ):
        measured = recorder.artifact("ModelEvaluation", metric_mae=mae, metric_rmse=2 * mae, metric_rows=1756.0)
        blessing = recorder.artifact("ModelBlessing", blessed=blessed)
        if model is second:
            recorder.execution("Trainer", run, {"examples": examples}, {"model": model})
        recorder.execution("Evaluator", run, {"model": model}, {"evaluation": measured, "blessing": blessing})
    destination = served(tmp_path, 1_790_000_000)
    recorder.push("20260101T000000-aaaaaa", first, 1_790_000_000, str(destination))
    recorder.execution("Pusher", "20260102T000000-bbbbbb", {"model": second}, {
        "pushed_model": recorder.artifact("PushedModel", pushed=0)
    })  # fmt: skip
    recorder.execution(
        "CsvExampleGen", "20260103T000000-cccccc", outputs={"examples": examples}, state=pb.Execution.CACHED
    )
    recorder.execution("DataGate", "20260103T000000-cccccc", state=pb.Execution.FAILED, error=REFUSED)
    return tmp_path


def served(workspace: Path, version: int) -> Path:
    """Push a version whose model is one file; return its folder."""
    model = workspace / "model"
    model.mkdir()
    (model / "saved_model.pb").write_bytes(b"graph")
    record = {"model_id": 1, "fingerprint": layout.fingerprint(model), "exports_fingerprint": ""}
    base = workspace / "serving" / "bike_demand"
    return Path(ModelRegistry(base).add(model, version, record))


def call(command: Any, workspace: Path, *options: str) -> str:
    """Call a command in this process; return what it printed."""
    done = CliRunner().invoke(command, ["--set", f"workspace={workspace}", *options])
    if done.exception:
        raise done.exception
    return done.output


def test_every_run_is_a_row_and_nothing_of_it_is_cut(workspace: Path) -> None:
    shown = call(runs_command, workspace)
    assert "…" not in shown
    lines = shown.splitlines()
    assert [line.split()[0] for line in lines if line[:4] == "2026"] == [
        "20260101T000000-aaaaaa",
        "20260102T000000-bbbbbb",
        "20260103T000000-cccccc",
    ]
    assert "pushed as version 1790000000" in shown
    assert "not blessed" in shown
    # The outcome is the last column; a long path goes on in the next line.
    column = lines[0].index("outcome")
    failed = lines[next(number for number, line in enumerate(lines) if "cccccc" in line) :]
    assert failed[0][:column].split()[3:-1] == ["2", "v3", "failed", "1", "1"]
    told = "".join(line[column:] for line in failed)
    assert "".join(told.split()) == f"DataGate: {REFUSED}".replace(" ", "")


def test_runs_for_machines(workspace: Path) -> None:
    listed = json.loads(call(runs_command, workspace, "--json"))
    assert [run["state"] for run in listed] == ["done", "done", "failed"]
    assert [run["span"] for run in listed] == [2, 0, 2]
    assert listed[2]["outcome"] == f"DataGate: {REFUSED}"
    assert [stage["state"] for stage in listed[2]["stages"]] == ["cached", "failed"]
    assert listed[2]["stages"][1]["error"] == REFUSED


def test_every_model_is_a_row_with_its_verdict(workspace: Path) -> None:
    lines = call(models_command, workspace).splitlines()
    assert lines[0].split()[-5:] == ["MAE", "RMSE", "RMSLE", "bias", "calibration"]
    served, refused = lines[1:]
    assert served.split()[3:] == ["2", "v3", "yes", "1790000000", "(serving)", "30.500", "61.000", "-", "-", "-"]
    assert refused.split()[3:] == ["2", "v3", "no", "-", "99.250", "198.500", "-", "-", "-"]


def test_models_for_machines(workspace: Path) -> None:
    served, refused = json.loads(call(models_command, workspace, "--json"))
    assert (served["blessed"], served["serving"], served["served_version"]) == (True, True, 1_790_000_000)
    assert (refused["blessed"], refused["serving"], refused["served_version"]) == (False, False, None)
    assert served["metrics"]["mae"] == 30.5


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (shutil.rmtree, "its folder is gone"),
        (lambda folder: (folder / "push.json").unlink(), "its push.json is gone"),
        (lambda folder: (folder / "saved_model.pb").write_bytes(b"grapH"), "not those that were pushed"),
    ],
    ids=["folder", "record", "changed"],
)
def test_a_promoted_model_whose_files_are_gone_is_not_said_to_serve(workspace: Path, damage: Any, said: str) -> None:
    damage(workspace / "serving" / "bike_demand" / "1790000000")
    shown = call(models_command, workspace)
    assert "(serving)" not in shown
    assert "1790000000 (NOT serving)" in shown
    assert said in shown.splitlines()[-1]
    first, _ = json.loads(call(models_command, workspace, "--json"))
    assert first["serving"] is False
    assert said in first["wrong"]


@pytest.mark.parametrize("command", [runs_command, models_command])
def test_without_a_store_both_say_what_to_do_and_make_none(command: Any, tmp_path: Path) -> None:
    with pytest.raises(MetadataError, match="bike-pipeline run"):
        call(command, tmp_path / "workspace")
    assert not (tmp_path / "workspace").exists()
