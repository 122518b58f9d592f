"""A small model and the examples of a month, evaluated without a pipeline around."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bike_pipeline.components import evaluator
from bike_pipeline.settings import load_settings
from bike_pipeline.settings.evaluation import EvaluationSettings
from tests.components.conftest import on_beam

WIDE: dict[str, Any] = {
    "value_thresholds": [
        {"metric": "mae", "upper": 1000},
        {"metric": "rmse", "upper": 1000},
        {"metric": "rmsle", "upper": 100},
        {"metric": "bias", "lower": -100, "upper": 100},
        {"metric": "calibration", "lower": -100, "upper": 100},
    ],
    "change_thresholds": [{"metric": "mae", "max_increase": 0.02}, {"metric": "rmse", "max_increase": 0.02}],
    "bootstrap": {"confidence": 0.9, "draws": 200, "min_blocks": 6},
    "intervals": {"min_coverage": 0.001, "max_coverage": 1.0, "max_width": 1e9, "min_rows": 10_000},
    "max_mae_to_mean": 0.99,
    "min_rows": {"hour_band": 1, "workingday": 1, "season": 1, "weathersit": 1},
    # Six days of March have neither four seasons nor all kinds of weather.
    "may_be_missing": {"hour_band": [], "workingday": [], "season": [1, 2, 3, 4], "weathersit": [1, 2, 3, 4]},
    "warn_increase": 0.5,
    "busy": load_settings().evaluation.busy.model_dump(),
}
# Far above any count, so that even a model of two epochs beats it.
EASY_BASELINE = {"mean_rentals_by_workingday_and_hour": [[9000.0] * 24] * 2}


def lookup(state: str, model: Path | None = None) -> Any:
    """Return what BaselineLookup hands on."""
    from tfx.types import standard_artifacts

    artifact = standard_artifacts.Model()
    artifact.uri = "" if model is None else str(model)
    artifact.set_string_custom_property("state", state)
    artifact.set_string_custom_property("reason", f"it is {state}")
    artifact.set_int_custom_property("serving_version", 12)
    return artifact


class World:
    """One small model and the examples of a month."""

    def __init__(self, folder: Path, saved_model: Path, examples: Any, schema: Any) -> None:
        """Copy the model, since tests change it."""
        from tfx.types import standard_artifacts

        self.folder = folder
        self.model = standard_artifacts.Model()
        self.model.uri = str(folder / "model")
        shutil.copytree(saved_model, folder / "model" / "Format-Serving")
        self.reference = folder / "model" / "Format-Serving" / "assets.extra" / "hourly_mean.json"
        self.reference.write_text(json.dumps(EASY_BASELINE))
        self.trained = self.reference.with_name("trained_slices.json")
        self.inputs = {"examples": [examples], "schema": [schema], "model": [self.model]}

    def evaluate(self, name: str, baseline: Any, in_memory_rows: int = 10**6, **changes: Any) -> Any:
        """Run the Evaluator; return its report and both artifacts."""
        from tfx.types import standard_artifacts
        from tfx.utils import proto_utils

        from bike_pipeline.modeling import evaluation

        settings = EvaluationSettings.model_validate({**WIDE, **changes})
        output, blessing = standard_artifacts.ModelEvaluation(), standard_artifacts.ModelBlessing()
        output.uri, blessing.uri = (str(self.folder / name / kind) for kind in ("evaluation", "blessing"))
        evaluator.EvaluatorExecutor(on_beam()).Do(
            {**self.inputs, "baseline_model": [baseline]},
            {"evaluation": [output], "blessing": [blessing]},
            {
                "eval_config": proto_utils.proto_to_json(evaluation.eval_config(settings)),
                "example_splits": json.dumps(["eval"]),
                "module_path": "bike_pipeline.modeling.evaluation",
                "fairness_indicator_thresholds": "null",
                "evaluation": settings.model_dump_json(),
                "metric_set": "m",
                "in_memory_rows": in_memory_rows,
            },
        )
        report = json.loads((Path(output.uri) / "decisions.json").read_text())
        return SimpleNamespace(report=report, evaluation=output, blessing=blessing)


def blessed(evaluated: Any) -> bool:
    """Return the verdict; report, property and marker file must agree."""
    (marker,) = Path(evaluated.blessing.uri).iterdir()
    verdicts = {
        evaluated.report["blessed"],
        evaluated.blessing.get_int_custom_property("blessed") == 1,
        marker.name == "BLESSED",
    }
    assert len(verdicts) == 1
    return verdicts.pop()


def stored(artifact: Any, folder: Path) -> Any:
    """Write an artifact to a metadata store, as TFX does after the stage; return what stands there."""
    from ml_metadata.metadata_store import metadata_store
    from ml_metadata.proto import metadata_store_pb2

    config = metadata_store_pb2.ConnectionConfig()
    config.sqlite.filename_uri = str(folder / "metadata.sqlite")
    config.sqlite.connection_mode = metadata_store_pb2.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
    store = metadata_store.MetadataStore(config)
    artifact.type_id = store.put_artifact_type(artifact.artifact_type)
    (found,) = store.get_artifacts_by_id(store.put_artifacts([artifact.mlmd_artifact]))
    return found
