"""A small world of recorded runs: two models on two spans, the second one serving, with everything that TFX records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ml_metadata.proto import metadata_store_pb2 as pb

from bike_pipeline.data.embedded_dataset import split_demo
from bike_pipeline.data.ingest import ingest
from bike_pipeline.data.spans import SpanStore
from bike_pipeline.lineage.records.run_record import record_run, source_of_this_run
from bike_pipeline.settings import Settings, load_settings
from tests.recording import Recorder

FIRST, SECOND = 1_790_000_001, 1_790_000_002


def report(mae: float) -> dict[str, Any]:
    """Return what an evaluation decided."""
    where = {"slicing": "overall", "slice": "", "rows": 900}
    decision = {"kind": "value", "metric": "mae", **where, "value": mae, "lower": None,
                "upper": 55.0, "binding": True, "passed": True, "reason": f"mae, overall: {mae}"}  # fmt: skip
    change = {**decision, "kind": "change", "value": 0.01, "upper": 0.02, "low": -0.03, "high": 0.05,
              "reason": "mae against the baseline, overall: +1.0 % (-3.0 to +5.0 %)"}  # fmt: skip
    metrics = {"rows": 900.0, "mae": mae, "rmse": 2 * mae, "rmsle": 0.4, "bias": 0.01, "calibration": 1.01}
    return {
        "blessed": True,
        "baseline": {"state": "none", "reason": "no model has been pushed yet", "serving_version": 0},
        "hourly_mean_mae": 60.0,
        "naive_maes": {"hourly mean": 60.0, "seasonal naive": 66.0},
        "worst_slice": {"reason": f"mae, winter: {mae:g} on 900 rows"},
        "decisions": [decision, change],
        "candidate_metrics": [
            {"slicing": "overall", "slice": "", **metrics},
            {"slicing": "season", "slice": "1", **metrics},
        ],
        "baseline_metrics": [],
    }


class Runs:
    """A workspace with recorded runs.

    Attributes:
        workspace: the workspace.
        settings: its settings.
        recorder: its metadata store.
        models: the Model artifacts, in the order they were trained.
    """

    def __init__(self, workspace: Path) -> None:
        """Ingest both halves; record nothing yet."""
        self.workspace = workspace
        self.settings = load_settings(assignments=(f"workspace={workspace}",))
        for half in split_demo(workspace / "uploads"):
            ingest(self.settings, str(half))
        self.spans = SpanStore(self.settings.store_uri)
        self.recorder = Recorder(self.settings.metadata_file)
        self.models: list[pb.Artifact] = []
        self._number = 0

    def artifact(self, kind: str, stage: str, key: str, **properties: Any) -> pb.Artifact:
        """Record an artifact with a payload of a few bytes."""
        self._number += 1
        uri = Path(self.settings.pipeline_root) / stage / key / str(self._number)
        uri.mkdir(parents=True)
        (uri / "payload").write_bytes(b"x" * 1000)
        return self.recorder.artifact(kind, str(uri), **properties)

    def window(self, *spans: int) -> dict[str, str]:
        """Return the properties of Examples that hold the given spans."""
        found = [self.spans.latest(span) for span in spans]
        window = [
            {"span": v.span, "version": v.version, "content_sha256": v.manifest.content_sha256,
             "rows": {"train": v.manifest.rows.train, "eval": v.manifest.rows.eval}}
            for v in found
        ]  # fmt: skip
        manifests = {f"{v.span}/{v.version}": v.manifest_sha256 for v in found}
        return {"window": json.dumps(window), "manifests": json.dumps(manifests)}

    def run(
        self,
        name: str,
        spans: tuple[int, ...],
        push: int | None,
        mae: float = 30.0,
        settings: Settings | None = None,
        base: pb.Artifact | None = None,
        record: bool = True,
    ) -> pb.Artifact:
        """Record a whole run; return its model."""
        r = self.recorder
        if record:
            record_run(r.store, source_of_this_run(settings or self.settings, name, "local"))
        rows = json.dumps({"train": 10, "eval": 5, "history": 0})
        examples = self.artifact("Examples", "CsvExampleGen", "examples", span=spans[-1], version=1,
                                 rows_by_split=rows, **self.window(*spans))  # fmt: skip
        r.execution("CsvExampleGen", name, outputs={"examples": examples})
        schema = self.artifact("Schema", "ImportSchemaGen", "schema")
        Path(schema.uri, "schema.pbtxt").write_bytes((settings or self.settings).schema_path.read_bytes())
        r.execution("ImportSchemaGen", name, outputs={"schema": schema})
        statistics = self.artifact("ExampleStatistics", "StatisticsGen", "statistics")
        r.execution("StatisticsGen", name, {"examples": examples, "schema": schema}, {"statistics": statistics})
        gate = self.artifact("bike.DataGateReport", "DataGate", "report", warnings=1)
        r.execution("DataGate", name, {"statistics": statistics, "schema": schema}, {"report": gate})
        graph = self.artifact("TransformGraph", "Transform", "transform_graph")
        r.execution("Transform", name, {"examples": examples, "schema": schema}, {"transform_graph": graph})
        inputs = {"examples": examples, "schema": schema, "transform_graph": graph}
        if base is not None:
            copy = self.artifact("Model", "WarmStartLookup", "baseline_model")
            r.execution("WarmStartLookup", name, outputs={"baseline_model": copy},
                        baseline=json.dumps({"model_id": base.id}))  # fmt: skip
            inputs["base_model"] = copy
        model = self.artifact("Model", "Trainer", "model")
        r.execution("Trainer", name, inputs, {"model": model})
        baseline = self.artifact("Model", "BaselineLookup", "baseline_model", reason="none")
        r.execution("BaselineLookup", name, {"model": model}, {"baseline_model": baseline})
        evaluation = self.artifact("ModelEvaluation", "Evaluator", "evaluation", metric_mae=mae,
                                   decisions=json.dumps(report(mae)))  # fmt: skip
        blessing = self.artifact("ModelBlessing", "Evaluator", "blessing", blessed=int(push is not None))
        r.execution(
            "Evaluator",
            name,
            {"examples": examples, "model": model, "baseline_model": baseline, "schema": schema},
            {"evaluation": evaluation, "blessing": blessing},
        )
        destination = str(Path(self.settings.serving_path) / str(push)) if push else ""
        pushed = (
            self.artifact(
                "PushedModel",
                "Pusher",
                "pushed_model",
                pushed=1,
                pushed_version=str(push),
                pushed_destination=destination,
            )
            if push
            else self.artifact("PushedModel", "Pusher", "pushed_model", pushed=0)
        )
        r.execution("Pusher", name, {"model": model, "model_blessing": blessing}, {"pushed_model": pushed})
        self.models.append(model)
        return model

    def two(self) -> Runs:
        """Record two runs on one and two spans, both pushed."""
        self.run("run-1", (1,), FIRST, mae=30.0)
        self.run("run-2", (1, 2), SECOND, mae=40.0)
        return self
