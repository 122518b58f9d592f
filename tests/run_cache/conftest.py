"""A workspace with one complete run behind it, written by hand, as a runner would leave it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ml_metadata.proto import metadata_store_pb2 as pb

from bike_pipeline.data.ingest import ingest
from bike_pipeline.lineage.records import sealing
from bike_pipeline.lineage.store.metadata_store import Lineage
from bike_pipeline.model_registry import ModelRegistry, layout
from bike_pipeline.run_cache.rerun import Rerun
from bike_pipeline.run_events import StageResult
from bike_pipeline.settings import Settings, load_settings
from tests.data.making import make_rows, to_csv
from tests.recording import Recorder

ROOT = Path(__file__).resolve().parents[2]


class Watcher:
    """Takes down what an observer is told."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.stages: list[str] = []
        self.results: list[StageResult] = []

    def loading(self) -> None:
        """Not expected of an answer."""
        raise AssertionError("an answer loads nothing")

    def planned(self, stages: list[str]) -> None:
        """Take down the plan."""
        self.stages = stages

    def started(self, stage: str) -> None:
        """A stage begins in its turn."""
        assert stage == self.stages[len(self.results)]

    def progressed(self, stage: str, fraction: float, text: str) -> None:
        """Not expected of an answer."""
        raise AssertionError("an answer works on nothing")

    def finished(self, result: StageResult) -> None:
        """Take down the result."""
        self.results.append(result)


class Workspace:
    """A workspace, its settings, and the runs in it.

    Attributes:
        folder: the workspace.
        recorder: writes into its metadata store.
        definition: parameters by stage that the pipeline's definition gives.
    """

    def __init__(self, folder: Path, upload: Path) -> None:
        """Make the workspace, with one span and an edited copy of the schema."""
        self.folder = folder
        folder.mkdir()
        shutil.copy(ROOT / "configs" / "schema.pbtxt", folder / "schema.pbtxt")
        self.recorder = Recorder(folder / "metadata.sqlite")
        self.definition: dict[str, dict[str, pb.Value]] = {
            "CsvExampleGen": {"window_spans": pb.Value(int_value=2)},
            "Trainer": {"source_hash": pb.Value(string_value="abc")},
            "BaselineLookup": {"accept_baseline_reset": pb.Value(int_value=0)},
            "Evaluator": {},
            "Pusher": {},
        }
        self.ingest(upload)

    def settings(self, *assignments: str) -> Settings:
        """Return the workspace's settings with some changed."""
        return load_settings(
            assignments=(f"workspace={self.folder}", f"schema_file={self.folder / 'schema.pbtxt'}", *assignments)
        )

    def ingest(self, upload: Path) -> None:
        """Bring a span in."""
        ingest(self.settings(), str(upload))

    @property
    def lineage(self) -> Lineage:
        """The store that the recorder writes to."""
        return Lineage(self.recorder.store)

    @property
    def serving(self) -> Path:
        """The model's base path."""
        return Path(self.settings().serving_path)

    def artifact(self, kind: str, number: str, **properties: Any) -> pb.Artifact:
        """Record a live artifact with one file of payload."""
        folder = self.folder / "artifacts" / kind / number
        folder.mkdir(parents=True)
        (folder / "payload").write_text(number, encoding="utf-8")
        artifact = self.recorder.artifact(kind, str(folder), **properties)
        self.seal(artifact)
        return artifact

    def seal(self, artifact: pb.Artifact) -> None:
        """Seal an artifact's files as they are now, as the end of its stage does."""
        artifact.custom_properties[sealing.SEAL_PROPERTY].string_value = sealing.seal_of(artifact.uri)
        self.recorder.store.put_artifacts([artifact])

    def run(self, name: str, blessed: bool = True, baseline_accepts: int = 0) -> dict[str, pb.Artifact]:
        """Record a complete run whose model serves where it is blessed; return its artifacts by their kind."""
        recorder = self.recorder
        rows = json.dumps({"train": 60, "eval": 12, "history": 0})
        examples = self.artifact("Examples", name, span=1, version=1, rows_by_split=rows)
        model = self.artifact("Model", name)
        (Path(model.uri) / "Format-Serving").mkdir()
        (Path(model.uri) / "Format-Serving" / "saved_model.pb").write_text(name, encoding="utf-8")
        baseline = self.artifact("Baseline", name, state="none", reason="no model has been pushed yet")
        evaluation = self.artifact("ModelEvaluation", name, metric_mae=30.0, metric_rmse=45.0)
        Path(evaluation.uri, "decisions.json").write_text('{"blessed": true}', encoding="utf-8")
        for completed in (model, evaluation):
            self.seal(completed)
        blessing = self.artifact("ModelBlessing", name, blessed=int(blessed))
        version = 1000 + len(list(self.serving.glob("*")))
        pushed = {"pushed": 0}
        if blessed:
            source = Path(model.uri) / "Format-Serving"
            fingerprint = layout.fingerprint(source)
            record = {"model_id": model.id, "model_uri": model.uri, "fingerprint": fingerprint, "metric_set": "m"}
            ModelRegistry(self.serving).add(source, version, {**record, "pushed_at_ms": 0})
            pushed = {
                "pushed": 1,
                "pushed_version": str(version),
                "pushed_destination": str(self.serving / str(version)),
                "fingerprint": fingerprint,
                "metric_set": "m",
            }  # type: ignore[dict-item]
        push = self.artifact("PushedModel", name, **pushed)
        recorder.execution("CsvExampleGen", name, {}, {"examples": examples}, window_spans=2, window="[…]", span=1)
        recorder.execution("Trainer", name, {"examples": examples}, {"model": model}, source_hash="abc")
        recorder.execution(
            "BaselineLookup", name, {"model": model}, {"baseline_model": baseline},
            accept_baseline_reset=baseline_accepts, baseline="{}",
        )  # fmt: skip
        recorder.execution(
            "Evaluator", name, {"examples": examples, "model": model, "baseline_model": baseline},
            {"evaluation": evaluation, "blessing": blessing},
        )  # fmt: skip
        recorder.execution(
            "Pusher", name, {"model": model, "model_blessing": blessing}, {"pushed_model": push}, lost_pushes=0
        )
        for execution in self.executions(name):
            cache = pb.Context(
                name=f"key-{execution.id}",
                type_id=recorder.store.put_context_type(pb.ContextType(name="execution_cache")),
            )
            (cache.id,) = recorder.store.put_contexts([cache])
            recorder.store.put_attributions_and_associations(
                [], [pb.Association(execution_id=execution.id, context_id=cache.id)]
            )
        return {
            "examples": examples, "model": model, "baseline": baseline, "evaluation": evaluation, "push": push,
        }  # fmt: skip

    def executions(self, run: str) -> list[pb.Execution]:
        """Return a run's executions, in order."""
        store = self.recorder.store
        context = store.get_context_by_type_and_name("pipeline_run", run)
        return sorted(store.get_executions_by_context(context.id), key=lambda execution: execution.id)

    def finish(self, name: str, *assignments: str, enable_cache: bool = True, accept: bool = False) -> None:
        """Let the end of a run keep what the next one needs."""
        Rerun(self.settings(*assignments), enable_cache, accept).keep(self.lineage, name, self.definition)

    def answered(self, *assignments: str, enable_cache: bool = True, accept: bool = False) -> bool:
        """Return whether a run is answered from the one before."""
        return Rerun(self.settings(*assignments), enable_cache, accept).answer(Watcher()) is not None


@pytest.fixture(scope="session")
def upload(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that writes some days of rows as an upload."""

    def write(start: str = "2011-01-01", seed: int = 0) -> Path:
        path = tmp_path_factory.mktemp("upload") / "rows.csv"
        path.write_bytes(to_csv(make_rows(start, 6, seed=seed)))
        return path

    return write


@pytest.fixture
def workspace(tmp_path: Path, upload: Callable[..., Path]) -> Workspace:
    """A workspace with one complete run, whose end was kept."""
    workspace = Workspace(tmp_path / "workspace", upload())
    workspace.run("first")
    workspace.finish("first")
    return workspace
