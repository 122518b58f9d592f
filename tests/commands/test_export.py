"""`export` and `parity`: any model on record, in a folder that appears whole, marked where it was not blessed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bike_pipeline.commands.models import export_command, parity_command
from bike_pipeline.errors import ConfigurationError, ExportError, StorageError
from bike_pipeline.lineage.records import sealing
from bike_pipeline.lineage.store.metadata_store import prop
from bike_pipeline.model_registry import layout
from bike_pipeline.use_cases import export as export_folders
from tests.exporting import plugin
from tests.lineage.world import FIRST, Runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, exported: Any) -> Runs:
    """A pushed model and one that was not blessed, both with the files of one small real model."""
    runs = Runs(tmp_path_factory.mktemp("exporting") / "workspace")
    for name, push in (("run-1", FIRST), ("run-2", None)):
        model = runs.run(name, (1,), push)
        shutil.copytree(exported.path, Path(model.uri) / "Format-Serving")
    store = runs.recorder.store
    (pushed,) = (a for a in store.get_artifacts_by_type("PushedModel") if prop(a, "pushed") == 1)
    pushed.custom_properties["fingerprint"].string_value = layout.fingerprint(exported.path)
    store.put_artifacts([pushed])
    return runs


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The formats of a plug-in package beside ours."""
    plugin.install(tmp_path / "installed")
    monkeypatch.syspath_prepend(tmp_path / "installed")


def call(command: Any, runs: Runs, *options: str) -> None:
    """Call a command in this process."""
    command.main(
        ["--set", f"workspace={runs.workspace}", "--set", "exporting.golden_rows=200", *options], standalone_mode=False
    )


def test_the_served_model_is_exported_whole_and_measured(
    runs: Runs, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out"
    call(export_command, runs, "--formats", "tflite_float32", "--output", str(target), "--json")
    report = json.loads(capfd.readouterr().out)
    assert report["folder"] == str(target)
    assert list(report["formats"]) == ["saved_model", "tflite_float32"]
    assert all(entry["passed"] and entry["own_process"] for entry in report["formats"].values())
    # TensorFlow's import is most of what a process waits for before its first answer.
    assert report["formats"]["tflite_float32"]["cold_start_ms"] < report["formats"]["saved_model"]["cold_start_ms"]
    kept = json.loads((target / "parity.json").read_text())
    assert kept == {key: value for key, value in report.items() if key != "folder"}
    assert (target / "tflite_float32" / "model.tflite").stat().st_size == kept["formats"]["tflite_float32"][
        "size_bytes"
    ]
    assert layout.fingerprint(target / "saved_model") == layout.fingerprint(Path(runs.models[0].uri) / "Format-Serving")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".out")] == []


def test_a_model_that_was_not_blessed_needs_force_and_is_marked(
    runs: Runs, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    unblessed = str(runs.models[1].id)
    options = ("--formats", "tflite_float32", "--model", unblessed, "--output", str(tmp_path / "out"))
    with pytest.raises(ExportError, match=rf"model {unblessed} was not blessed.*--force"):
        call(export_command, runs, *options)
    assert not (tmp_path / "out").exists()
    call(export_command, runs, *options, "--force")
    assert "NOT blessed: the exports are marked as such" in capfd.readouterr().out
    report = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert report["blessed"] is False
    assert report["edge_gate"] == {
        "blessed": False, "format": "tflite_float32", "reason": "the model is not blessed",
    }  # fmt: skip
    assert (tmp_path / "out" / "NOT_BLESSED").is_file()


def test_a_format_that_fails_is_told_and_the_others_are_there(
    runs: Runs, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "parity.json").write_text("exports of an earlier time")
    with pytest.raises(ExportError, match=r"dies_answering is not exported: .* ended of SIGABRT"):
        call(export_command, runs, "--formats", "dies_answering", "--output", str(target))
    shown = capfd.readouterr().out
    assert "✘ dies_answering: " in shown
    assert "exported to" in shown
    assert json.loads((target / "parity.json").read_text())["formats"]["saved_model"]["passed"]


def test_nothing_is_replaced_that_is_no_export(runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("mine")
    with pytest.raises(StorageError, match="something that is no export"):
        call(export_command, runs, "--output", str(tmp_path))
    assert (tmp_path / "letters.txt").read_text() == "mine"


def test_exports_whose_replacement_was_killed_half_way_are_still_there(tmp_path: Path) -> None:
    target, fresh = tmp_path / "out", tmp_path / "fresh"
    before = export_folders._before(target)
    before.mkdir()
    (before / "parity.json").write_text("old")
    export_folders._recover(target)
    assert (target / "parity.json").read_text() == "old"
    fresh.mkdir()
    (fresh / "parity.json").write_text("new")
    export_folders._put(fresh, target)
    assert (target / "parity.json").read_text() == "new"
    assert not before.exists()


def test_formats_and_models_that_do_not_exist_are_named(runs: Runs) -> None:
    with pytest.raises(ConfigurationError, match="there is no export format 'caffe2'"):
        call(parity_command, runs, "--formats", "caffe2")
    with pytest.raises(Exception, match="there is no model '4711'"):
        call(parity_command, runs, "--model", "4711")


def test_a_model_whose_files_are_gone_cannot_be_exported(runs: Runs, tmp_path: Path) -> None:
    folder = Path(runs.models[1].uri) / "Format-Serving"
    folder.rename(tmp_path / "elsewhere")
    try:
        with pytest.raises(ExportError, match=r"files of model .* are gone or changed.*reproduce"):
            call(parity_command, runs, "--model", str(runs.models[1].id))
    finally:
        (tmp_path / "elsewhere").rename(folder)


def test_a_model_that_was_changed_since_it_was_trained_is_not_exported(runs: Runs, tmp_path: Path) -> None:
    model = runs.models[1]
    model.custom_properties[sealing.SEAL_PROPERTY].string_value = sealing.seal_of(model.uri)
    runs.recorder.store.put_artifacts([model])
    graph = Path(model.uri) / "Format-Serving" / "saved_model.pb"
    content = graph.read_bytes()
    graph.write_bytes(content + b" ")
    options = ("--formats", "tflite_float32", "--model", str(model.id), "--output", str(tmp_path / "out"), "--force")
    with pytest.raises(ExportError, match=f"the files of model {model.id} are gone or changed"):
        call(export_command, runs, *options)
    graph.write_bytes(content)


def test_the_matrix_shows_every_measure_and_the_worst_row(runs: Runs, capfd: pytest.CaptureFixture[str]) -> None:
    call(parity_command, runs, "--formats", "int8_off,slightly_off")
    shown = capfd.readouterr().out
    for words in ("max difference", "golden row", "RMSE", "MAE +", "worst slice", "size", "cold start", "one row",
                  "rows/s", "golden rows that are furthest", "✘ slightly_off: largest relative difference",
                  "edge: NOT blessed: no LiteRT format was exported"):  # fmt: skip
        assert words in shown
    assert "…" not in shown
