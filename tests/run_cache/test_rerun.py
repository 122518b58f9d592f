"""A run is answered from the one before only where nothing at all is different, and is recorded as TFX would."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from ml_metadata.proto import metadata_store_pb2 as pb

from bike_pipeline.lineage.queries.run_results import PROPERTY
from bike_pipeline.lineage.records import sealing
from bike_pipeline.run_cache import rerun
from bike_pipeline.run_cache.rerun import Rerun
from tests.run_cache.conftest import Watcher, Workspace


def test_an_unchanged_run_is_answered_again_and_again(workspace: Workspace) -> None:
    for number in (2, 3):
        watcher = Watcher()
        result = Rerun(workspace.settings(), True, False).answer(watcher)
        assert result is not None
        assert [stage.name for stage in result.stages] == list(workspace.definition) == watcher.stages
        assert {stage.state for stage in result.stages} == {"cached"}
        assert watcher.results == list(result.stages)
        assert (result.pushed_version, result.newly_pushed) == (1000, False)
        assert result.decisions == {"blessed": True}
        assert result.stages[0].outcome == "span 1 version 1: 60 train, 12 eval rows"
        runs = workspace.lineage.runs()
        assert len(runs) == number
        assert (runs[-1].run_id, runs[-1].state, runs[-1].span) == (result.run_id, "done", 1)
        assert runs[-1].outcome == "nothing new, version 1000"


def test_the_record_is_that_of_a_cached_run(workspace: Workspace) -> None:
    result = Rerun(workspace.settings(), True, False).answer(Watcher())
    assert result is not None
    store = workspace.recorder.store
    for before, after in zip(workspace.executions("first"), workspace.executions(result.run_id), strict=True):
        assert after.last_known_state == pb.Execution.CACHED
        assert after.type_id == before.type_id
        assert after.name not in ("", before.name)
        stage = workspace.lineage.stage_of(before)
        assert set(after.custom_properties) == set(workspace.definition[stage])
        linked = [
            {
                (event.artifact_id, event.type, event.path.SerializeToString())
                for event in store.get_events_by_execution_ids([execution.id])
            }
            for execution in (before, after)
        ]
        assert linked[0] == linked[1]
        contexts = [
            {(c.type, c.name) for c in store.get_contexts_by_execution(execution.id) if c.type != "pipeline_run"}
            for execution in (before, after)
        ]
        assert contexts[0] == contexts[1]
        assert {kind for kind, _ in contexts[1]} == {"node", "execution_cache"}
    run = store.get_context_by_type_and_name("pipeline_run", result.run_id)
    assert {a.id for a in store.get_artifacts_by_context(run.id)} == {a.id for a in store.get_artifacts()}
    assert (
        workspace.lineage.producer(store.get_artifacts_by_type("Model")[0].id).id == workspace.executions("first")[1].id
    )
    assert len(workspace.lineage.models()) == 1


def spoil(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


def change_a_digit(store: Path) -> None:
    path = store / "span-0001" / "version-0001" / "train" / "data.csv"
    head, row, *rest = path.read_text(encoding="utf-8").splitlines(keepends=True)
    digits = row.rstrip("\n")
    path.write_text("".join([head, digits[:-1] + str((int(digits[-1]) + 1) % 10) + "\n", *rest]), encoding="utf-8")


def unseal(workspace: Workspace) -> None:
    (artifact,) = workspace.recorder.store.get_artifacts_by_type("Examples")
    artifact.custom_properties[sealing.SEAL_PROPERTY].string_value = ""
    workspace.recorder.store.put_artifacts([artifact])


def later_run(workspace: Workspace, state: int) -> None:
    workspace.recorder.execution("CsvExampleGen", "later", state=state)


def no_longer_live(workspace: Workspace) -> None:
    (artifact,) = workspace.recorder.store.get_artifacts_by_type("Examples")
    artifact.state = pb.Artifact.MARKED_FOR_DELETION
    workspace.recorder.store.put_artifacts([artifact])


def newer_version_by_another_hand(workspace: Workspace) -> None:
    shutil.copytree(workspace.serving / "1000", workspace.serving / "2000")


DEFEATS: dict[str, Callable[[Workspace], object]] = {
    "schema": lambda w: spoil(w.folder / "schema.pbtxt"),
    "schema gone": lambda w: (w.folder / "schema.pbtxt").unlink(),
    "serving folder emptied": lambda w: shutil.rmtree(w.serving),
    "served files damaged": lambda w: spoil(w.serving / "1000" / "saved_model.pb"),
    "served file gone": lambda w: (w.serving / "1000" / "saved_model.pb").unlink(),
    "served exports changed": lambda w: (
        (w.serving / "1000" / "assets.extra" / "exports").mkdir(parents=True)
        or (w.serving / "1000" / "assets.extra" / "exports" / "model.tflite").write_bytes(b"another")
    ),
    "push record gone": lambda w: (w.serving / "1000" / "push.json").unlink(),
    "another version in the serving folder": newer_version_by_another_hand,
    "artifact deleted": lambda w: shutil.rmtree(w.folder / "artifacts" / "Examples"),
    "artifact no longer live": no_longer_live,
    "decisions gone": lambda w: (w.folder / "artifacts" / "ModelEvaluation" / "first" / "decisions.json").unlink(),
    "a digit of a span's row changed": lambda w: change_a_digit(w.folder / "spans"),
    "an output's file changed": lambda w: spoil(w.folder / "artifacts" / "Examples" / "first" / "payload"),
    "a file added to an output": lambda w: (w.folder / "artifacts" / "Examples" / "first" / "more").touch(),
    "an output that was never sealed": unseal,
    "a later run failed": lambda w: later_run(w, pb.Execution.FAILED),
    "a later run was killed": lambda w: later_run(w, pb.Execution.RUNNING),
    "store of spans gone": lambda w: shutil.rmtree(w.folder / "spans"),
}


@pytest.mark.parametrize("name", DEFEATS)
def test_whatever_differs_goes_the_ordinary_way(workspace: Workspace, name: str) -> None:
    DEFEATS[name](workspace)
    assert not workspace.answered()
    assert all(run.state != "done" for run in workspace.lineage.runs()[1:])


@pytest.mark.parametrize(
    "assignment",
    [
        "training.epochs=3",
        "seed=7",
        "evaluation.max_mae_to_mean=0.5",
        "data.window.spans=1",
        "training.warm_start=true",
    ],
)
def test_another_setting_goes_the_ordinary_way(workspace: Workspace, assignment: str) -> None:
    assert not workspace.answered(assignment)
    assert workspace.answered()


def test_beam_flags_change_no_result(workspace: Workspace) -> None:
    assert workspace.answered("beam.pipeline_args=[--direct_runner_bundle_repeat=0]", "beam.engine=flink")


def test_new_data_goes_the_ordinary_way(workspace: Workspace, upload: Callable[..., Path]) -> None:
    workspace.ingest(upload("2011-01-01", seed=1))
    assert not workspace.answered()
    workspace.run("corrected")
    workspace.finish("corrected")
    assert workspace.answered()
    workspace.ingest(upload("2011-02-01"))
    assert not workspace.answered()


def test_options_for_one_run_go_the_ordinary_way_and_leave_no_record(workspace: Workspace) -> None:
    for options in ({"enable_cache": False}, {"accept": True}):
        assert not workspace.answered(**options)  # type: ignore[arg-type]
        workspace.run(f"with {options}")
        workspace.finish(f"with {options}", **options)  # type: ignore[arg-type]
        assert not workspace.answered()


def test_a_run_that_was_not_blessed_is_no_answer(workspace: Workspace) -> None:
    workspace.run("worse", blessed=False)
    workspace.finish("worse")
    assert not workspace.answered()


def test_a_model_that_another_one_replaced_is_no_answer(workspace: Workspace) -> None:
    workspace.finish("first")
    artifacts = workspace.run("second", blessed=False)
    workspace.recorder.push("by hand", artifacts["model"], 3000, str(workspace.serving / "3000"))
    workspace.finish("first")
    assert not workspace.answered()


def test_a_driver_that_overrode_the_definition_leaves_no_record(workspace: Workspace) -> None:
    workspace.run("reset", baseline_accepts=1)
    workspace.finish("reset")
    assert not workspace.answered()


def test_changes_during_a_run_leave_no_record(workspace: Workspace, upload: Callable[..., Path]) -> None:
    workspace.run("second")
    running = Rerun(workspace.settings(), True, False)
    workspace.ingest(upload("2011-02-01"))
    running.keep(workspace.lineage, "second", workspace.definition)
    context = workspace.recorder.store.get_context_by_type_and_name("pipeline_run", "second")
    assert PROPERTY not in context.custom_properties


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"parts": 3, "driver_properties": {}}'])
def test_a_record_that_cannot_be_read_goes_the_ordinary_way(workspace: Workspace, content: str) -> None:
    context = workspace.recorder.store.get_context_by_type_and_name("pipeline_run", "first")
    context.custom_properties[PROPERTY].string_value = content
    workspace.recorder.store.put_contexts([context])
    assert not workspace.answered()


def test_the_first_run_of_a_workspace_has_nothing_before_it(tmp_path: Path, upload: Callable[..., Path]) -> None:
    fresh = Workspace(tmp_path / "fresh", upload())
    assert not fresh.answered()
    (fresh.folder / "metadata.sqlite").unlink()
    assert not fresh.answered()


@pytest.mark.parametrize("change", ["edited", "added", "removed", "runners", "installed"])
def test_code_is_part_of_the_fingerprint(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    package, runners, site = tmp_path / "package", tmp_path / "runners", tmp_path / "site"
    for folder in (package / "modeling", runners, site / "tensorflow-2.21.0.dist-info"):
        folder.mkdir(parents=True)
    for file in (package / "features.py", package / "modeling" / "training.py", runners / "local.py"):
        file.write_text("x = 1\n", encoding="utf-8")
    # As in a checkout, where that folder of the package is a link.
    (package / "runners").symlink_to(runners)
    monkeypatch.setattr(rerun.sysconfig, "get_paths", lambda: {"purelib": str(site), "platlib": str(site)})
    before = rerun.inputs_of(workspace.settings(), package)
    assert before is not None
    assert rerun.inputs_of(workspace.settings(), package) == before
    if change == "edited":
        spoil(package / "modeling" / "training.py")
    elif change == "added":
        (package / "modeling" / "new.py").touch()
    elif change == "removed":
        (package / "features.py").unlink()
    elif change == "runners":
        spoil(runners / "local.py")
    else:
        (site / "tensorflow-2.21.0.dist-info").rename(site / "tensorflow-2.21.1.dist-info")
    after = rerun.inputs_of(workspace.settings(), package)
    assert after is not None
    part = {"runners": "runners", "installed": "environment"}.get(change, "source")
    assert [name for name in before if before[name] != after[name]] == [part]


def test_the_record_names_its_parts(workspace: Workspace) -> None:
    context = workspace.recorder.store.get_context_by_type_and_name("pipeline_run", "first")
    record = json.loads(context.custom_properties[PROPERTY].string_value)
    parts = {"settings", "source", "runners", "environment", "schema", "window", "serving"}
    assert set(record["parts"]) == parts
    assert record["driver_properties"]["CsvExampleGen"] == ["span", "window"]
