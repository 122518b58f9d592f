"""Freeing old artifacts: never what a served model needs, safe to interrupt, and never an answer of the cache."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from ml_metadata.proto import metadata_store_pb2 as pb

from bike_pipeline.commands.lineage import gc_command
from bike_pipeline.errors import BusyError, MetadataError, StorageError
from bike_pipeline.lineage.queries import garbage_collection
from bike_pipeline.lineage.queries.evidence import decisions_of
from bike_pipeline.lineage.queries.history import History
from bike_pipeline.lineage.queries.model_lookup import find_model
from bike_pipeline.lineage.reports.lineage_report import report_of_model
from bike_pipeline.lineage.store.metadata_store import Lineage
from bike_pipeline.settings import PROJECT_ROOT
from bike_pipeline.storage.atomic_files import workspace_lock
from tests.lineage.world import FIRST, SECOND, Runs
from tests.recording import Recorder

THIRD = SECOND + 1


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Three pushed models and one that was refused; the third serves. Recording them anew for each test takes long."""
    folder = tmp_path_factory.mktemp("world")
    found = Runs(folder / "w").two()
    found.run("refused", (1, 2), None)
    found.run("run-3", (1, 2), THIRD)
    shutil.copytree(folder / "w", folder / "backup")
    return found


@pytest.fixture
def runs(template: Runs) -> Runs:
    """The template as it was, in its own place: the store holds absolute paths."""
    shutil.rmtree(template.workspace)
    shutil.copytree(template.workspace.parent / "backup", template.workspace)
    template.recorder = Recorder(template.settings.metadata_file)
    return template


def planned(runs: Runs, keep_blessed: int = 0, keep_days: float = 0.0, now: datetime | None = None):
    settings = runs.settings
    return garbage_collection.plan(
        History(Lineage(runs.recorder.store)),
        settings.pipeline_root,
        settings.serving_path,
        keep_blessed,
        keep_days,
        now or datetime.now(UTC) + timedelta(minutes=1),
    )


def runs_of_freed(runs: Runs, payloads: list[garbage_collection.Payload]) -> set[str]:
    """Return the runs whose artifacts are freed."""
    lineage = Lineage(runs.recorder.store)
    found = set()
    for payload in payloads:
        producer = lineage.producer(payload.artifact_id) if payload.free else None
        if producer is not None:
            (run,) = [c.name for c in lineage.store.get_contexts_by_execution(producer.id) if c.type == "pipeline_run"]
            found.add(run)
    return found


def states(runs: Runs) -> dict[int, int]:
    return {artifact.id: artifact.state for artifact in runs.recorder.store.get_artifacts()}


def call(runs: Runs, *arguments: str) -> str:
    done = CliRunner().invoke(gc_command, [*arguments, "--set", f"workspace={runs.workspace}"])
    if done.exception:
        raise done.exception
    return done.output


def test_the_lineage_of_what_serves_is_kept_whole_whatever_is_asked(runs: Runs) -> None:
    payloads = planned(runs)
    assert runs_of_freed(runs, payloads) == {"run-1", "run-2", "refused"}
    kept = [p for p in payloads if not p.free]
    # Examples, schema, statistics, the gate's report, graph, model, baseline, evaluation, blessing, push.
    assert len(kept) == 10
    assert {p.reason for p in kept} == {"lineage of the model that serves"}
    assert all(p.size == 1000 or p.kind == "Schema" for p in payloads)


def test_blessed_models_keep_their_lineage_and_refused_ones_do_not_count(runs: Runs) -> None:
    assert runs_of_freed(runs, planned(runs, keep_blessed=2)) == {"run-1", "refused"}
    assert runs_of_freed(runs, planned(runs, keep_blessed=9)) == {"refused"}


def test_what_was_made_or_read_from_the_cache_lately_is_kept(runs: Runs) -> None:
    assert not any(p.free for p in planned(runs, keep_days=1))
    later = datetime.now(UTC) + timedelta(days=2)
    assert runs_of_freed(runs, planned(runs, keep_days=1, now=later)) == {"run-1", "run-2", "refused"}
    # A run that finds the first examples in the cache uses them anew.
    (examples, *_) = Lineage(runs.recorder.store).artifacts("Examples")
    execution = runs.recorder.execution("CsvExampleGen", "again", state=pb.Execution.CACHED)
    event = pb.Event(artifact_id=examples.id, execution_id=execution, type=pb.Event.OUTPUT)
    event.path.steps.add().key = "examples"
    event.milliseconds_since_epoch = int(later.timestamp() * 1000)
    runs.recorder.store.put_events([event])
    kept = {p.artifact_id: p.reason for p in planned(runs, keep_days=1, now=later) if not p.free}
    assert kept[examples.id] == "used in the last 1 days"


def test_the_baseline_that_the_serving_model_was_blessed_against_is_kept(tmp_path: Path) -> None:
    runs = Runs(tmp_path).two()
    second = runs.models[1]
    runs.recorder.execution(
        "BaselineLookup", "run-2", {"model": second}, baseline=json.dumps({"model_id": runs.models[0].id})
    )
    reasons = {p.artifact_id: p.reason for p in planned(runs)}
    assert reasons[runs.models[0].id] == "lineage of its baseline"
    assert not any(p.free for p in planned(runs) if p.kind == "Examples")


def test_a_warm_start_keeps_what_it_began_from(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    first = runs.run("run-1", (1,), FIRST)
    runs.run("run-2", (2,), SECOND, base=first)
    reasons = {p.artifact_id: p.reason for p in planned(runs)}
    assert reasons[first.id] == "lineage of the model that serves"


def test_a_run_at_work_keeps_what_it_reads(runs: Runs) -> None:
    (examples, *_) = Lineage(runs.recorder.store).artifacts("Examples")
    runs.recorder.execution("Trainer", "working", {"examples": examples}, state=pb.Execution.RUNNING)
    kept = {p.artifact_id for p in planned(runs) if not p.free}
    assert examples.id in kept


def test_a_push_that_was_never_recorded_still_serves(runs: Runs) -> None:
    """A process was killed between the push and its record: the serving folder knows better."""
    folder = Path(runs.settings.serving_path) / str(THIRD + 5)
    folder.mkdir(parents=True)
    record = {"model_id": runs.models[0].id, "model_uri": runs.models[0].uri, "fingerprint": "f", "metric_set": "m",
              "pushed_at_ms": 1}  # fmt: skip
    (folder / "push.json").write_text(json.dumps(record), encoding="utf-8")
    assert runs_of_freed(runs, planned(runs)) == {"run-2", "refused", "run-3"}


def test_nothing_outside_of_the_artifacts_and_nothing_shared_is_freed(runs: Runs, tmp_path: Path) -> None:
    outside = tmp_path / "precious"
    outside.mkdir()
    kept_model = runs.models[-1]
    records = [runs.recorder.artifact("Model", uri) for uri in (
        str(outside), runs.settings.pipeline_root, f"{runs.settings.pipeline_root}/../../precious",
        "s3://bucket/model", "", kept_model.uri, f"{kept_model.uri}/payload",
    )]  # fmt: skip
    payloads = {p.artifact_id: p for p in planned(runs)}
    assert not any(payloads[r.id].free for r in records if r.id in payloads)
    assert {r.id for r in records[:5]} & set(payloads) == set()
    assert (
        payloads[records[5].id].reason == payloads[records[6].id].reason == "its folder is shared with one that is kept"
    )
    call(runs, "--keep-blessed", "0", "--keep-days", "0")
    assert outside.is_dir()
    assert Path(kept_model.uri, "payload").is_file()


def test_a_dry_run_says_the_same_and_does_nothing(runs: Runs) -> None:
    before = states(runs)
    shown = call(runs, "--keep-blessed", "0", "--keep-days", "0", "--dry-run")
    assert states(runs) == before
    assert all(Path(a.uri).is_dir() for a in runs.recorder.store.get_artifacts())
    assert "would be freed" in shown
    plain = json.loads(call(runs, "--keep-blessed", "0", "--keep-days", "0", "--dry-run", "--json"))
    done = json.loads(call(runs, "--keep-blessed", "0", "--keep-days", "0", "--json"))
    assert {**plain, "dry_run": False} == done
    assert done["freed_bytes"] > 30_000


def test_afterwards_lineage_answers_and_says_what_is_gone(runs: Runs) -> None:
    call(runs, "--keep-blessed", "0", "--keep-days", "0")
    history = History(Lineage(runs.recorder.store))
    older, serving = (
        report_of_model(history, find_model(history, runs.settings.serving_path, name), runs.settings.store_uri)
        for name in (str(FIRST), None)
    )
    assert {n.payload for n in older.graph.nodes.values() if n.kind == "artifact"} == {"freed"}
    assert {n.payload for n in serving.graph.nodes.values() if n.kind == "artifact"} == {"there"}
    assert older.metrics == serving.metrics
    assert older.spans[0].files
    assert not Path(runs.models[0].uri).exists()
    again = json.loads(call(runs, "--keep-blessed", "0", "--keep-days", "0", "--json"))
    assert again["freed_bytes"] == 0


@pytest.mark.slow
def test_the_cache_never_answers_from_what_was_freed(runs: Runs) -> None:
    from tfx.orchestration import metadata
    from tfx.orchestration.portable import cache_utils

    lineage = Lineage(runs.recorder.store)
    store = lineage.store
    context_type = store.put_context_type(pb.ContextType(name="execution_cache"))
    (context_id,) = store.put_contexts([pb.Context(type_id=context_type, name="key")])
    trainer = lineage.producer(runs.models[0].id)
    assert trainer is not None
    store.put_attributions_and_associations([], [pb.Association(execution_id=trainer.id, context_id=context_id)])
    (context,) = store.get_contexts_by_id([context_id])
    config = metadata.sqlite_metadata_connection_config(str(runs.settings.metadata_file))

    def answer() -> object:
        with metadata.Metadata(config) as handle:
            return cache_utils.get_cached_outputs(handle, context)

    assert answer() is not None
    call(runs, "--keep-blessed", "0", "--keep-days", "0")
    assert answer() is None
    # Not even where somebody puts files back.
    Path(runs.models[0].uri).mkdir(parents=True)
    assert answer() is None


CRASH = """
import os, shutil, signal, sys
from bike_pipeline.lineage.queries import garbage_collection
left = int(sys.argv[2])
rmtree, put = shutil.rmtree, garbage_collection._put
def count(function):
    def counted(*arguments):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return function(*arguments)
    return counted
def half(place):
    (place / "payload").unlink()
    os.kill(os.getpid(), signal.SIGKILL)
shutil.rmtree = half if sys.argv[3] == "half" and left == 0 else count(rmtree)
garbage_collection._put = count(put)
from click.testing import CliRunner
from bike_pipeline.commands.lineage import gc_command
CliRunner().invoke(gc_command, ["--keep-blessed", "0", "--keep-days", "0", "--set", "workspace=" + sys.argv[1]])
"""


@pytest.mark.parametrize(("after", "how"), [(0, "call"), (1, "call"), (2, "call"), (7, "call"), (0, "half")])
def test_killed_anywhere_it_leaves_no_live_record_of_lost_files_and_goes_on(runs: Runs, after: int, how: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CRASH, str(runs.workspace), str(after), how],
        cwd=PROJECT_ROOT, check=False, timeout=60, capture_output=True,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    for artifact in runs.recorder.store.get_artifacts():
        if artifact.state == pb.Artifact.LIVE:
            assert any(Path(artifact.uri).iterdir()), artifact.uri
    call(runs, "--keep-blessed", "0", "--keep-days", "0")
    for artifact in runs.recorder.store.get_artifacts():
        assert (artifact.state == pb.Artifact.LIVE) == Path(artifact.uri).exists()
    assert sum(state == pb.Artifact.LIVE for state in states(runs).values()) == 10


def test_decisions_that_only_a_file_holds_go_on_record_first(tmp_path: Path) -> None:
    runs = Runs(tmp_path).two()
    (evaluation, *_) = Lineage(runs.recorder.store).artifacts("ModelEvaluation")
    report = decisions_of(evaluation)
    del evaluation.custom_properties["decisions"]
    runs.recorder.store.put_artifacts([evaluation])
    Path(evaluation.uri, "decisions.json").write_text(json.dumps(report), encoding="utf-8")
    call(runs, "--keep-blessed", "0", "--keep-days", "0")
    assert not Path(evaluation.uri).exists()
    (evaluation,) = runs.recorder.store.get_artifacts_by_id([evaluation.id])
    assert decisions_of(evaluation) == report


def test_files_that_cannot_be_deleted_are_an_error_and_stay_marked(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(place: Path) -> None:
        raise PermissionError(13, "Permission denied", str(place))

    with monkeypatch.context() as broken:
        broken.setattr(shutil, "rmtree", refuse)
        with pytest.raises(StorageError, match="Permission denied"):
            call(runs, "--keep-blessed", "0", "--keep-days", "0")
    assert pb.Artifact.MARKED_FOR_DELETION in states(runs).values()
    call(runs, "--keep-blessed", "0", "--keep-days", "0")
    assert pb.Artifact.MARKED_FOR_DELETION not in states(runs).values()


def test_it_takes_turns_with_runs(runs: Runs) -> None:
    with workspace_lock(runs.workspace, wait=False), pytest.raises(BusyError):
        call(runs)


def test_without_a_store_it_makes_nothing(tmp_path: Path) -> None:
    done = CliRunner().invoke(gc_command, ["--set", f"workspace={tmp_path / 'absent'}"])
    assert isinstance(done.exception, MetadataError)
    assert not (tmp_path / "absent").exists()
    assert not list(tmp_path.iterdir())


def test_what_a_killed_stage_left_is_freed_and_what_nobody_knows_stays(runs: Runs) -> None:
    root = Path(runs.settings.pipeline_root)
    ended = {
        state: runs.recorder.execution("Trainer", "killed", state=state)
        for state in (pb.Execution.CANCELED, pb.Execution.FAILED, pb.Execution.RUNNING, pb.Execution.COMPLETE)
    }
    left = {state: root / "Trainer" / "model_of_it" / str(number) for state, number in ended.items()}
    foreign = [
        root / "Trainer" / "model_of_it" / "999999",
        root / "Exporter" / "exports" / left[pb.Execution.FAILED].name,
    ]
    for place in (*left.values(), *foreign):
        place.mkdir(parents=True)
        (place / "half").write_bytes(b"x" * 10)
    lineage = Lineage(runs.recorder.store)
    payloads = planned(runs, keep_days=30)
    found = {Path(p.uri): p.size for p in payloads if p.kind == garbage_collection.UNRECORDED}
    assert found == {left[pb.Execution.CANCELED].resolve(): 10, left[pb.Execution.FAILED].resolve(): 10}
    garbage_collection.collect(History(lineage), payloads)
    assert [place.exists() for place in left.values()] == [False, False, True, True]
    assert all(place.exists() for place in foreign)
