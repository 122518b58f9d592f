"""`compress`: from a recorded model to candidates in the workspace, and every way in which it can be refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, get_args

import pytest
from click.testing import CliRunner

from bike_pipeline.commands.models import compress_command
from bike_pipeline.errors import BusyError, ConfigurationError, ExportError, ModelError
from bike_pipeline.settings.exporting import Method
from bike_pipeline.storage.atomic_files import workspace_lock
from bike_pipeline.use_cases.compression import METHODS
from tests.conftest import ROOT
from tests.recording import Recorder

SMALL = (
    "exporting.compression.pruning.epochs=1",
    "exporting.compression.rounds=1",
    "exporting.compression.max_mae_increase=10",
    "exporting.compression.max_slice_mae_increase=10",
    "exporting.compression.formats=[tflite_float32]",
    "training.batch_size=64",
)


@pytest.fixture(scope="module")
def recorded(exported: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose record holds one trained model that was never pushed, with all that made it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    workspace = tmp_path_factory.mktemp("compress") / "w"
    workspace.mkdir()
    shutil.copytree(exported.path, workspace / "model" / "Format-Serving")
    shutil.copytree(exported.transform_graph, workspace / "graph")
    (workspace / "schema").mkdir()
    shutil.copy(ROOT / "configs" / "schema.pbtxt", workspace / "schema")
    for split, rows in (("history", slice(0, 200)), ("train", slice(200, 500)), ("eval", slice(500, 600))):
        for folder in (f"Split-{split}", f"columns/Split-{split}"):
            (workspace / "examples" / folder).mkdir(parents=True)
        (workspace / "examples" / f"Split-{split}" / "data_tfrecord-00000-of-00001.gz").write_bytes(b"")
        table = pa.table({name: values[rows] for name, values in exported.rows.items() if name != "dteday"})
        pq.write_table(
            table, workspace / "examples" / f"columns/Split-{split}" / "data_tfrecord-00000-of-00001.parquet"
        )
    recorder = Recorder(workspace / "metadata.sqlite")
    inputs = {
        "examples": recorder.artifact("Examples", str(workspace / "examples")),
        "transform_graph": recorder.artifact("TransformGraph", str(workspace / "graph")),
        "schema": recorder.artifact("Schema", str(workspace / "schema")),
    }
    model = recorder.artifact("Model", str(workspace / "model"))
    recorder.execution("Trainer", "run-1", inputs, {"model": model})
    assert model.id == 4
    return workspace


@pytest.fixture
def workspace(recorded: Path, tmp_path: Path) -> Path:
    """A copy of it whose record still names the files of the first one."""
    (tmp_path / "w").mkdir()
    shutil.copy(recorded / "metadata.sqlite", tmp_path / "w")
    return tmp_path / "w"


def call(workspace: Path, *arguments: str, settings: tuple[str, ...] = SMALL) -> None:
    given = [word for setting in (f"workspace={workspace}", *settings) for word in ("--set", setting)]
    done = CliRunner().invoke(compress_command, [*given, *arguments])
    if done.exception:
        raise done.exception


def test_candidates_are_kept_and_the_table_names_the_winner_and_why_others_lost(
    workspace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    call(workspace, "--methods", "pruning", "4")
    shown = capfd.readouterr().out
    assert "on 100 rows of its eval split" in shown
    kept = workspace / "compression" / "4" / "1"
    table = json.loads((kept / "compression.json").read_text(encoding="utf-8"))
    assert [entry["method"] for entry in table["candidates"]] == ["plain", "pruning"]
    assert table["rows"] == {"train": 500, "eval": 100}
    lines = {line.split()[1]: line for line in shown.splitlines() if line[:1] in "✔·"}
    for entry in table["candidates"]:
        won = {"method": entry["method"], "format": entry["format"]} == table["winner"]
        assert lines[entry["method"]].startswith("✔" if won else "·")
        assert (kept / entry["file"]).is_file()
    call(workspace, "--methods", "pruning", "--json", "4")
    again = json.loads(capfd.readouterr().out)
    assert (again["model_id"], again["folder"]) == (4, str(workspace / "compression" / "4" / "2"))
    assert not kept.exists()


def test_where_no_candidate_is_within_the_limits_the_table_is_kept_and_the_command_fails(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bike_pipeline.exporting.compression import candidates
    from bike_pipeline.exporting.compression.rule import Candidate

    monkeypatch.setattr(candidates, "write_models", lambda *_: {})
    worse = Candidate("plain", "tflite_int8", "", mae_increase=0.2)
    monkeypatch.setattr(candidates, "measure", lambda *_: [worse, Candidate("pruning", "tflite_int8", "", error="no")])
    with pytest.raises(ExportError, match=r"nearest is plain tflite_int8: MAE \+20.00% overall, at most \+10"):
        call(workspace, "4", settings=(*SMALL[:1], "exporting.compression.max_mae_increase=0.1"))
    table = workspace / "compression" / "4" / "1" / "compression.json"
    assert json.loads(table.read_text(encoding="utf-8"))["winner"] is None


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (("99",), ModelError, "there is no model '99'"),
        ((), ModelError, "no model has been pushed yet"),
        (("--formats", "tflite_float64", "4"), ConfigurationError, "there is no export format 'tflite_float64'"),
    ],
)
def test_what_cannot_be_done_is_one_error_and_leaves_nothing(
    workspace: Path, arguments: tuple[str, ...], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        call(workspace, *arguments)
    assert not list(workspace.glob("compression/*/*"))


def test_an_unknown_method_is_a_wrong_command_line(workspace: Path) -> None:
    done = CliRunner().invoke(compress_command, ["--set", f"workspace={workspace}", "--methods", "clustering"])
    assert done.exit_code == 2
    assert "there is no method 'clustering'; choose from plain, pruning" in done.output


def test_the_command_knows_every_method_of_the_settings() -> None:
    assert get_args(Method) == METHODS


def test_freed_files_are_named(recorded: Path, workspace: Path) -> None:
    graph = recorded / "graph"
    graph.rename(recorded / "graph-away")
    try:
        with pytest.raises(ModelError, match="the transform graph that model 4 was trained with is not there any more"):
            call(workspace, "4")
    finally:
        (recorded / "graph-away").rename(graph)


def test_two_at_once_are_refused(workspace: Path) -> None:
    with workspace_lock(workspace / "compression", wait=False), pytest.raises(BusyError):
        call(workspace, "4")


def test_a_failure_in_the_middle_leaves_the_result_before(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bike_pipeline.exporting.compression import candidates

    kept = workspace / "compression" / "4" / "7"
    kept.mkdir(parents=True)

    def fail(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(candidates, "measure", fail)
    with pytest.raises(SystemExit):
        call(workspace, "--methods", "pruning", "4")
    assert [path.name for path in kept.parent.iterdir()] == ["7"]
