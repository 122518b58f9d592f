"""Exporter: a blessed model in every configured format, each proven to be the same model, before anything is pushed.

A format that fails blocks its own push only. What was measured is no part of any cache key: neither this stage's, which
has the limits and not the results among its parameters, nor the Pusher's choice of what is new (see
`model_folder.exports_fingerprint`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfx.components.util import model_utils
from tfx.dsl.components.base import base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import path_utils

from bike_pipeline import features
from bike_pipeline.components import base
from bike_pipeline.components.artifact_types import Exports
from bike_pipeline.components.base import Artifacts
from bike_pipeline.exporting import export_run
from bike_pipeline.exporting.acceptance.report import ExportReport, summary, write_report
from bike_pipeline.exporting.compression.candidates import Material, Trying
from bike_pipeline.exporting.export_run import EVALUATED_COLUMNS
from bike_pipeline.exporting.formats import registry
from bike_pipeline.exporting.formats.base import Source
from bike_pipeline.modeling import rows
from bike_pipeline.settings.evaluation import EvaluationSettings
from bike_pipeline.settings.exporting import ExportingSettings
from bike_pipeline.settings.training import TrainingSettings
from bike_pipeline.stages import EVAL, HISTORY, PARITY_PROPERTY, TRAIN, Stage

SUMMARY_PROPERTY = "formats"
EDGE_PROPERTY, EDGE_REASON_PROPERTY = "edge_blessed", "edge_reason"


class ExporterExecutor(base_executor.BaseExecutor):
    """Exports, checks, measures and decides every format of a blessed model."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]) -> None:
        """Write the exports, `parity.json` and `golden.json`; set what passed and all that was measured on the output.

        Raises:
            ConfigurationError: a format of the settings is not installed.
            DataError: the examples lack a column or have no rows.
            ExportError: the SavedModel itself cannot be exported.
        """
        settings = ExportingSettings.model_validate_json(exec_properties["exporting"])
        model = artifact_utils.get_single_instance(input_dict["model"])
        output = artifact_utils.get_single_instance(output_dict["exports"])
        folder = Path(output.uri)
        folder.mkdir(parents=True, exist_ok=True)
        if not model_utils.is_model_blessed(artifact_utils.get_single_instance(input_dict["model_blessing"])):
            reason = "the model is not blessed: nothing is exported"
            report = ExportReport({}, {}, 0, model.id, blessed=False, reason=reason)
            write_report(report, folder)
        else:
            formats = registry.formats_of(settings.all_formats)
            evaluation = EvaluationSettings.model_validate_json(exec_properties["evaluation"])
            model_folder = Path(path_utils.serving_model_dir(model.uri))
            there = base.rows_by_split(artifact_utils.get_single_instance(input_dict["examples"]))[TRAIN]
            names = [feature.name for feature in features.MODEL_INPUTS]
            source = Source(
                model_folder,
                _read(input_dict, TRAIN, names, every=max(1, there // settings.calibration_rows)),
                _compressing(model_folder, input_dict, exec_properties, settings, evaluation),
            )
            evaluated = _read(input_dict, EVAL, EVALUATED_COLUMNS)
            report = export_run.run(
                formats,
                source,
                evaluated,
                settings,
                evaluation,
                folder,
                model_id=model.id,
                blessed=True,
                saved_model_here=True,
            )
        plain = report.as_json()
        output.set_string_custom_property(PARITY_PROPERTY, json.dumps(plain))
        output.set_string_custom_property(SUMMARY_PROPERTY, summary(plain))
        output.set_int_custom_property(EDGE_PROPERTY, int(report.edge_gate.blessed))
        output.set_string_custom_property(EDGE_REASON_PROPERTY, report.edge_gate.reason)


def _read(input_dict: Artifacts, split: str, names: Sequence[str], every: int = 1) -> dict[str, Any]:
    folder = artifact_utils.get_split_uri(input_dict["examples"], split)
    return rows.read_split(folder, names, base.schema_of(input_dict), Stage.EXPORTER, every)


def _compressing(
    model: Path,
    input_dict: Artifacts,
    exec_properties: dict[str, Any],
    settings: ExportingSettings,
    evaluation: EvaluationSettings,
) -> Trying | None:
    """Return what a smaller model is made of; None where the settings name no method."""
    if not settings.compression.methods:
        return None
    examples = artifact_utils.get_single_uri(input_dict["examples"])
    schema = base.schema_file(input_dict)

    def read(*splits: str) -> dict[str, Any]:
        return rows.read([f"{examples}/Split-{split}/*" for split in splits], schema)

    further = json.loads(exec_properties["compressing"])
    training = TrainingSettings.model_validate(further["training"])
    graph = Path(artifact_utils.get_single_uri(input_dict["transform_graph"]))
    material = Material(model, graph, read(HISTORY, TRAIN), read(EVAL))
    return Trying(material, settings.compression.methods, settings, training, evaluation, further["seed"])


class Exporter(base.Component):
    """Turns a blessed model into the configured formats.

    Inputs: candidate, its blessing, examples, schema. Output: the exports. Parameters: the sections `exporting` and
    `evaluation` of the settings, each as JSON. Where smaller models are made of the blessed one, also the transform
    graph, and as `compressing` the section `training` and the seed, as JSON.
    """

    PARAMETERS = {
        **base.parameters(str, "exporting", "evaluation"),
        **base.parameters(str, "compressing", optional=True),
    }
    INPUTS = {
        **base.channels(
            model=standard_artifacts.Model,
            model_blessing=standard_artifacts.ModelBlessing,
            examples=standard_artifacts.Examples,
            schema=standard_artifacts.Schema,
        ),
        **base.channels(transform_graph=standard_artifacts.TransformGraph, optional=True),
    }
    OUTPUTS = base.channels(exports=Exports)
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(ExporterExecutor)
