"""Evaluator: sums by slice on any engine, TFMA's metrics and validation, and a blessing backed by every threshold.

TFX's own Evaluator takes a dictionary a row and slice through Python, 100 seconds of CPU time a million rows. This one
reads the same examples through the same signature and writes the same files; docs/decisions/0008-rows-in-batches.md.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from typing import Any, TypeVar

from absl import logging
from tensorflow_model_analysis.proto import config_pb2
from tfx import components, types
from tfx.components.evaluator import constants
from tfx.dsl.components.base import base_beam_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.utils import io_utils, path_utils, proto_utils

from bike_pipeline.components import base, beam_engine
from bike_pipeline.components.base import Artifacts
from bike_pipeline.errors import DataError, ModelError
from bike_pipeline.modeling import evaluation, paired_bootstrap, saved_model, slice_sums, slices, tfma_output
from bike_pipeline.modeling import rows as row_files
from bike_pipeline.modeling.feedback_record import FEEDBACK_FILE, Backtest, Feedback
from bike_pipeline.modeling.slice_sums import Job, Measured
from bike_pipeline.settings.evaluation import EvaluationSettings
from bike_pipeline.stages import (
    DECISIONS_FILE,
    DECISIONS_PROPERTY,
    EVAL,
    FOUND,
    REASON_PROPERTY,
    STATE_PROPERTY,
    VERSION_PROPERTY,
)
from bike_pipeline.storage.plain_json import finite

T = TypeVar("T")


class EvaluatorExecutor(base_beam_executor.BaseBeamExecutor):
    """Measures candidate and baseline, lets TFMA validate, applies the settings' thresholds, blesses or does not."""

    def Do(self, input_dict: Artifacts, output_dict: Artifacts, exec_properties: dict[str, Any]) -> None:
        """Evaluate and bless. The blessing needs TFMA's own consent and that of every binding decision.

        Raises:
            DataError: the examples cannot be evaluated, or are not as many as ExampleGen recorded.
            ModelError: the candidate does not say which slices it was trained on, or what it answers.
        """
        lookup = artifact_utils.get_single_instance(input_dict["baseline_model"])
        state = lookup.get_string_custom_property(STATE_PROPERTY)
        models = {evaluation.CANDIDATE: artifact_utils.get_single_instance(input_dict["model"])}
        if state == FOUND:
            models[evaluation.BASELINE] = lookup
        output = artifact_utils.get_single_instance(output_dict["evaluation"])
        examples = artifact_utils.get_single_instance(input_dict["examples"])
        folders = {name: path_utils.serving_model_dir(model.uri) for name, model in models.items()}
        target = saved_model.target_of(folders[evaluation.CANDIDATE])
        settings = EvaluationSettings.model_validate_json(exec_properties["evaluation"]).of(target.name)
        measured = self._measure(folders, examples, output.uri, exec_properties["in_memory_rows"])
        config = config_pb2.EvalConfig()
        proto_utils.json_to_proto(exec_properties["eval_config"], config)
        blessed_by_tfma = tfma_output.judge(output.uri, measured, config, folders, examples.uri)

        candidate = evaluation.read_metrics(output.uri, evaluation.CANDIDATE, target)
        baseline = evaluation.read_metrics(output.uri, evaluation.BASELINE, target) if len(models) > 1 else None
        by_slice = paired_bootstrap.changes(measured, evaluation.CANDIDATE, evaluation.BASELINE, settings.bootstrap)
        changes = {evaluation.key_of_slice(key): by_metric for key, by_metric in by_slice.items()}
        decisions = evaluation.decide(settings, candidate, baseline, measured.naive, changes, target)
        trained = _trained_slices(folders[evaluation.CANDIDATE])
        backtest = _backtest(folders[evaluation.CANDIDATE]) if target.is_corrected else None
        if target.is_corrected:
            decisions += evaluation.interval_decisions(settings, backtest)
        decisions += list(evaluation.unjudged(settings, candidate, trained, decisions))
        looked_up = {
            "state": state,
            "reason": lookup.get_string_custom_property(REASON_PROPERTY),
            "serving_version": lookup.get_int_custom_property(VERSION_PROPERTY),
        }
        naive = measured.naive_by_name
        report = evaluation.report(settings, decisions, candidate, baseline, looked_up, naive, backtest, target)
        for warning in report["warnings"]:
            logging.warning("Evaluator: %s", warning)
        report["blessed_by_tfma"] = blessed_by_tfma
        report["blessed"] = blessed_by_tfma and report["blessed"]
        # A metric may be no number, for which neither JSON nor the metadata store has a name.
        finite_report = finite(report)
        io_utils.write_string_file(os.path.join(output.uri, DECISIONS_FILE), json.dumps(finite_report, indent=2))
        # The file may be freed one day; what was decided, and why, stays on record.
        output.set_string_custom_property(DECISIONS_PROPERTY, json.dumps(finite_report))
        numbers: dict[str, float | None] = {
            f"metric_{name}": value for name, value in candidate[slices.OVERALL, ""].items()
        }
        for decision in decisions:
            if decision.kind == "change" and decision.slicing == slices.OVERALL:
                name = f"change_{decision.metric}"
                numbers |= {name: decision.value, f"{name}_low": decision.low, f"{name}_high": decision.high}
        for name, value in numbers.items():
            if value is not None and math.isfinite(value):
                output.set_float_custom_property(name, float(value))
        if report["warnings"]:
            output.set_int_custom_property("warnings", len(report["warnings"]))
        blessing = artifact_utils.get_single_instance(output_dict["blessing"])
        _bless(blessing, models, report["blessed"])
        for artifact in (output, blessing):
            artifact.set_string_custom_property("baseline_state", state)
            artifact.set_string_custom_property("metric_set", exec_properties["metric_set"])
            artifact.set_string_custom_property("target", target.meaning)

    def _measure(self, folders: dict[str, str], examples: types.Artifact, output: str, in_memory_rows: int) -> Measured:
        split = artifact_utils.get_split_uri([examples], EVAL)
        jobs = [Job(path, tuple(folders.items()), folders[evaluation.CANDIDATE]) for path in row_files.shards(split)]
        rows = base.rows_by_split(examples)[EVAL]
        measured = slice_sums.total(
            beam_engine.for_each(
                self._make_beam_pipeline(),
                jobs,
                slice_sums.measure,
                output,
                rows=rows,
                in_memory_rows=in_memory_rows,
                doing=f"evaluating {' and '.join(folders)}",
            )
        )
        if not rows or measured.rows != rows:
            raise DataError(
                f"{measured.rows} rows were evaluated and {rows} were written",
                where=split,
                fix="run again with --no-cache, so that the examples are written anew",
            )
        return measured


def _trained_slices(folder: str) -> slices.RowsBySlice:
    """Return the rows by slice of what the model in a folder was trained on."""
    return _extra(folder, saved_model.TRAINED_SLICES_FILE, "which slices it was trained on", slices.from_json)


def _backtest(folder: str) -> Backtest | None:
    """Return what feedback and intervals of the model in a folder did on the eval split."""
    return _extra(folder, FEEDBACK_FILE, "how its intervals did", Feedback.from_json).backtest


def _extra(folder: str, name: str, what: str, read: Callable[[str], T]) -> T:
    path = os.path.join(folder, saved_model.EXTRA_FOLDER, name)
    fix = "run again with --no-cache, so that it is trained anew"
    if not fileio.exists(path):
        raise ModelError(f"the model does not say {what}", where=path, fix=fix)
    try:
        return read(io_utils.read_string_file(path))
    except ValueError as error:
        raise ModelError(str(error), where=path, fix=fix) from error


def _bless(blessing: types.Artifact, models: dict[str, types.Artifact], blessed: bool) -> None:
    """Write the verdict as TFX's Evaluator does; its Pusher reads it."""
    candidate, baseline = models[evaluation.CANDIDATE], models.get(evaluation.BASELINE)
    blessing.set_string_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_URI_KEY, candidate.uri)
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY, candidate.id)
    if baseline is not None:
        blessing.set_string_custom_property(constants.ARTIFACT_PROPERTY_BASELINE_MODEL_URI_KEY, baseline.uri)
        blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_BASELINE_MODEL_ID_KEY, baseline.id)
    marker = constants.BLESSED_FILE_NAME if blessed else constants.NOT_BLESSED_FILE_NAME
    io_utils.write_string_file(os.path.join(blessing.uri, marker), "")
    blessing.set_int_custom_property(
        constants.ARTIFACT_PROPERTY_BLESSED_KEY, constants.BLESSED_VALUE if blessed else constants.NOT_BLESSED_VALUE
    )


class Evaluator(components.Evaluator):
    """TFX's Evaluator with the executor above."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(EvaluatorExecutor)
