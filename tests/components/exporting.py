"""A small model with its examples, exported without a pipeline around."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bike_pipeline.components import exporter
from bike_pipeline.settings import load_settings
from bike_pipeline.settings.evaluation import EvaluationSettings
from tests.components.evaluating import EASY_BASELINE, WIDE

MIN_ROWS = {"hour_band": 10, "workingday": 10, "season": 10, "weathersit": 10_000}


class World:
    """One small model with its examples."""

    def __init__(self, folder: Path, saved_model: Path, examples: Any, schema: Any) -> None:
        """Copy the model, since tests change it."""
        from tfx.types import standard_artifacts

        self.folder = folder
        self.model = standard_artifacts.Model()
        self.model.uri, self.model.id = str(folder / "model"), 7
        self.saved_model = folder / "model" / "Format-Serving"
        shutil.copytree(saved_model, self.saved_model)
        (self.saved_model / "assets.extra" / "hourly_mean.json").write_text(json.dumps(EASY_BASELINE))
        self.inputs = {"examples": [examples], "schema": [schema], "model": [self.model]}

    def export(
        self,
        *formats: str,
        blessed: bool = True,
        min_rows: dict[str, int] = MIN_ROWS,
        value_thresholds: Any = WIDE["value_thresholds"],
        **changes: Any,
    ) -> Any:
        """Run the Exporter; return its report, its folder and its artifact."""
        from tfx.types import standard_artifacts

        blessing = standard_artifacts.ModelBlessing()
        blessing.set_int_custom_property("blessed", int(blessed))
        output = exporter.Exports()
        output.uri = str(self.folder / "exports" / "-".join(formats))
        evaluation = EvaluationSettings.model_validate(
            {**WIDE, "min_rows": min_rows, "value_thresholds": value_thresholds}
        )
        settings = load_settings().exporting.model_copy(
            update={"formats": ("saved_model", *formats), "golden_rows": 200, "calibration_rows": 50, **changes}
        )
        exporter.ExporterExecutor().Do(
            {**self.inputs, "model_blessing": [blessing]},
            {"exports": [output]},
            {"exporting": settings.model_dump_json(), "evaluation": evaluation.model_dump_json()},
        )
        report = json.loads((Path(output.uri) / "parity.json").read_text())
        return SimpleNamespace(report=report, folder=Path(output.uri), artifact=output)
