"""From sums to TFMA's verdict and TFMA's files: what `tfma.load_metrics` and `tfma.load_validation_result` read.

The metrics, their keys, the thresholds and the validation are TFMA's; only the way from rows to sums is ours.
"""

from __future__ import annotations

import os
from typing import Any

import tensorflow as tf
import tensorflow_model_analysis as tfma
from google.protobuf import json_format
from tensorflow_model_analysis.evaluators import metrics_validator
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.proto import config_pb2, validation_result_pb2
from tensorflow_model_analysis.writers import metrics_plots_and_validations_writer as tfma_writer

from bike_pipeline.modeling.slice_sums import Measured
from bike_pipeline.modeling.slices import OVERALL
from bike_pipeline.storage.files import as_pattern

EXAMPLE_COUNT = "example_count"
CANDIDATE, BASELINE = "candidate", "baseline"
MetricsBySlice = dict[tuple[Any, ...], dict[metric_types.MetricKey, float]]


def judge(
    folder: str, measured: Measured, config: config_pb2.EvalConfig, models: dict[str, str], data_location: str
) -> bool:
    """Let TFMA validate, write its files into a folder, and return its verdict.

    Sums and locations are of the `models` "candidate" and, if there is one, "baseline"; `data_location` is for display.
    """
    # As TFX does it: without a baseline there is nothing to compare with, and change thresholds rest.
    config = tfma.utils.update_eval_config_with_defaults(config, has_baseline=BASELINE in models, rubber_stamp=True)
    tfma.utils.verify_eval_config(config)
    names = {BASELINE if spec.is_baseline else CANDIDATE: spec.name for spec in config.model_specs}
    by_slice = _metrics_by_slice(measured, names, names.get(BASELINE))
    combine = tfma_writer.CombineValidations(config)
    whole = combine.create_accumulator()
    for item in by_slice.items():
        whole = combine.add_input(whole, metrics_validator.validate_metrics(item, config))
    run = config_pb2.EvalRun(
        eval_config=config,
        version=tfma.version.VERSION,
        data_location=data_location,
        file_format="tfrecords_gzip",
        model_locations={names[name]: location for name, location in models.items()},
    )
    write(folder, by_slice, combine.extract_output(whole), run)
    verdict = tfma.load_validation_result(os.path.join(as_pattern(folder), tfma.VALIDATIONS_KEY))
    return bool(verdict.validation_ok)


def _metrics_by_slice(measured: Measured, names: dict[str, str], baseline: str | None) -> MetricsBySlice:
    """Return every metric by TFMA's slice key and metric key, and the differences to the baseline, if there is one.

    `names` leads from the model names in the sums to TFMA's, of which `baseline` is one.
    """
    found: MetricsBySlice = {}
    # What no class of TFMA's computes has no weighted twin.
    weighted = False if measured.target.in_tfma else None
    for (key, model), sums in sorted(measured.sums.items(), key=str):
        values = {EXAMPLE_COUNT: float(sums[0]), **measured.target.metrics_of(sums)}
        by_key = found.setdefault(() if key[0] == OVERALL else (key,), {})
        for metric, value in values.items():
            by_key[metric_types.MetricKey(metric, names[model], example_weighted=weighted)] = value
    if baseline is not None:
        for by_key in found.values():
            differences = {
                key.make_diff_key(): value - by_key[key.make_baseline_key(baseline)]
                for key, value in by_key.items()
                if key.model_name != baseline
            }
            by_key.update(differences)
    return found


def write(
    folder: str, by_slice: MetricsBySlice, validation: validation_result_pb2.ValidationResult, run: config_pb2.EvalRun
) -> None:
    """Write the files of an evaluation into the ModelEvaluation artifact's folder."""
    tf.io.gfile.makedirs(folder)
    metrics_file = os.path.join(folder, f"{tfma.METRICS_KEY}-00000-of-00001.tfrecord")
    with tf.io.TFRecordWriter(metrics_file) as writer:
        for item in by_slice.items():
            writer.write(tfma_writer.convert_slice_metrics_to_proto(item, None).SerializeToString())
    for kind in (tfma.PLOTS_KEY, tfma.ATTRIBUTIONS_KEY):
        # There are none; TFMA's readers look for the files.
        tf.io.TFRecordWriter(os.path.join(folder, f"{kind}-00000-of-00001.tfrecord")).close()
    with tf.io.TFRecordWriter(os.path.join(folder, f"{tfma.VALIDATIONS_KEY}.tfrecord")) as writer:
        writer.write(validation.SerializeToString())
    with tf.io.gfile.GFile(os.path.join(folder, "eval_config.json"), "w") as file:
        file.write(json_format.MessageToJson(run))
