"""Evaluator: TFMA's evaluation, and a blessing that every binding threshold stands behind."""

from __future__ import annotations

import json
import os
from typing import Any

from absl import flags
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx import components, types
from tfx.components.evaluator import constants
from tfx.components.evaluator import executor as stock
from tfx.components.util import tfxio_utils
from tfx.dsl.components.base import executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.utils import io_utils, path_utils
from tfx_bsl.tfxio import dataset_options

from bike_pipeline import features, progress
from bike_pipeline.components import baseline_lookup
from bike_pipeline.components.example_shards import EVAL
from bike_pipeline.lineage.evidence import DECISIONS_FILE, DECISIONS_PROPERTY, finite
from bike_pipeline.modeling import evaluation, rows, saved_model
from bike_pipeline.modeling.reference import HourlyMean
from bike_pipeline.settings import EvaluationSettings


class EvaluatorExecutor(stock.Executor):
    """Runs TFMA on candidate and baseline, applies the settings' thresholds and writes `decisions.json`."""

    def Do(  # noqa: N802 (TFX's name)
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Evaluate and bless. The blessing needs TFMA's own consent and that of every binding decision."""
        settings = EvaluationSettings.model_validate_json(exec_properties["evaluation"])
        lookup = artifact_utils.get_single_instance(input_dict["baseline_model"])
        state = lookup.get_string_custom_property(baseline_lookup.STATE_PROPERTY)
        inputs = dict(input_dict)
        if state != baseline_lookup.FOUND:
            del inputs["baseline_model"]
        # Beam's own choice of batches follows its clock, and a product of matrices of another size rounds otherwise:
        # with batches by size, the same model on the same rows has the same metrics, to the last digit.
        flags.FLAGS.set_default("tfxio_use_byte_size_batching", True)
        progress.report(
            0.1, "evaluating candidate and baseline" if "baseline_model" in inputs else "evaluating candidate"
        )
        super().Do(inputs, output_dict, exec_properties)
        output = artifact_utils.get_single_instance(output_dict["evaluation"])
        candidate = evaluation.read_metrics(output.uri, evaluation.CANDIDATE)
        baseline = evaluation.read_metrics(output.uri, evaluation.BASELINE) if "baseline_model" in inputs else None
        hourly_mean_mae = _hourly_mean_mae(input_dict)
        decisions = evaluation.decide(settings, candidate, baseline, hourly_mean_mae)
        report = evaluation.report(
            decisions,
            candidate,
            baseline,
            {
                "state": state,
                "reason": lookup.get_string_custom_property(baseline_lookup.REASON_PROPERTY),
                "serving_version": lookup.get_int_custom_property(baseline_lookup.VERSION_PROPERTY),
            },
            hourly_mean_mae,
        )
        blessing = artifact_utils.get_single_instance(output_dict["blessing"])
        by_tfma = blessing.get_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY) == constants.BLESSED_VALUE
        report["blessed_by_tfma"] = by_tfma
        report["blessed"] = by_tfma and report["blessed"]
        if by_tfma and not report["blessed"]:
            _withdraw(blessing)
        io_utils.write_string_file(os.path.join(output.uri, DECISIONS_FILE), json.dumps(report, indent=2))
        # The file may be freed one day; what was decided, and why, stays on record.
        output.set_string_custom_property(DECISIONS_PROPERTY, json.dumps(finite(report)))
        for name, value in candidate[evaluation.OVERALL, ""].items():
            output.set_float_custom_property(f"metric_{name}", float(value))
        for artifact in (output, blessing):
            artifact.set_string_custom_property("baseline_state", state)
            artifact.set_string_custom_property("metric_set", exec_properties["metric_set"])


def _withdraw(blessing: types.Artifact) -> None:
    fileio.remove(os.path.join(blessing.uri, constants.BLESSED_FILE_NAME))
    io_utils.write_string_file(os.path.join(blessing.uri, constants.NOT_BLESSED_FILE_NAME), "")
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY, constants.NOT_BLESSED_VALUE)


def _hourly_mean_mae(input_dict: dict[str, list[types.Artifact]]) -> float:
    """Return the MAE on the eval split of the mean by hour and working day of the candidate's own training rows."""
    model = artifact_utils.get_single_uri(input_dict["model"])
    extra = os.path.join(path_utils.serving_model_dir(model), saved_model.EXTRA_FOLDER)
    reference = HourlyMean.from_json(io_utils.read_string_file(os.path.join(extra, saved_model.REFERENCE_FILE)))
    schema = io_utils.SchemaReader().read(
        io_utils.get_only_uri_in_dir(artifact_utils.get_single_uri(input_dict["schema"]))
    )
    assert isinstance(schema, schema_pb2.Schema)
    source = tfxio_utils.get_split_tfxio(
        examples=input_dict["examples"], split=EVAL, telemetry_descriptors=["Evaluator"], schema=schema
    )
    options = dataset_options.RecordBatchesOptions(batch_size=65_536, num_epochs=1, shuffle=False)
    names = (features.HOUR, "workingday", features.LABEL)
    columns = rows.to_columns(source.RecordBatches(options), names)
    return reference.mean_absolute_error(*(columns[name] for name in names))


class Evaluator(components.Evaluator):
    """TFX's Evaluator with the executor above."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(EvaluatorExecutor)
