"""The gate in front of devices: TFMA's thresholds and those of the slices, on what the LiteRT file itself answers.

The same limits as for the SavedModel, and against the SavedModel those of `exporting`. TFMA's own predictor of LiteRT
models is passed over: it takes row after row through Python, and where a name does not match it fills in -1 with a
warning at most. The answers are those that LiteRT gave through the file's signature, on the same rows; metrics, keys,
thresholds and validation are TFMA's. A slow test holds the numbers against TFMA's own evaluation of the same file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from bike_pipeline.exporting.acceptance.report import SAVED_MODEL, EdgeGate, ExportReport
from bike_pipeline.exporting.formats.base import Format
from bike_pipeline.exporting.formats.tflite import SIGNATURE, Tflite
from bike_pipeline.modeling import evaluation, tfma_output
from bike_pipeline.modeling.slice_sums import Measured
from bike_pipeline.modeling.slices import SLICINGS
from bike_pipeline.settings.evaluation import ChangeThreshold, EvaluationSettings
from bike_pipeline.settings.exporting import ExportingSettings
from bike_pipeline.stages import DECISIONS_FILE

# Folder of the evaluations beside the exports, one a format, as TFMA's readers expect them.
EVALUATIONS_FOLDER = "tfma"


def edge_gates(
    report: ExportReport,
    sums: Measured,
    formats: Sequence[Format],
    settings: EvaluationSettings,
    limits: ExportingSettings,
    model: Path,
    folder: Path,
) -> dict[str, EdgeGate]:
    """Return the verdict on each LiteRT format that passed; the first of them is that of the model."""
    litert = [f for f in formats if isinstance(f, Tflite) and report.formats[f.name].passed]
    if not litert:
        return {}
    # The SavedModel is the baseline.
    changes = (
        ChangeThreshold(metric="mae", max_increase=limits.max_mae_increase),
        *(ChangeThreshold(metric="mae", slicing=s, max_increase=limits.max_slice_mae_increase) for s in SLICINGS),  # type: ignore[arg-type]
    )
    held = settings.of(sums.target.name).model_copy(update={"change_thresholds": changes})
    return {format_.name: _verdict(sums, format_, held, model, folder) for format_ in litert}


def _verdict(sums: Measured, format_: Format, settings: EvaluationSettings, model: Path, folder: Path) -> EdgeGate:
    names = {format_.name: evaluation.CANDIDATE, SAVED_MODEL: evaluation.BASELINE}
    measured = Measured(
        {(key, names[name]): found for (key, name), found in sums.sums.items() if name in names},
        sums.naive_errors,
        target=sums.target,
    )
    config = evaluation.eval_config(settings, type(sums.target))
    for spec in config.model_specs:
        if spec.name == evaluation.CANDIDATE:
            spec.model_type, spec.signature_name = "tf_lite", SIGNATURE
    output = folder / EVALUATIONS_FOLDER / format_.name
    locations = {evaluation.CANDIDATE: str(folder / format_.name), evaluation.BASELINE: str(model)}
    by_tfma = tfma_output.judge(str(output), measured, config, locations, "")
    decisions = evaluation.decide(
        settings,
        evaluation.read_metrics(str(output), evaluation.CANDIDATE, sums.target),
        evaluation.read_metrics(str(output), evaluation.BASELINE, sums.target),
        measured.naive,
        target=sums.target,
    )
    failed = [decision for decision in decisions if decision.binding and not decision.passed]
    blessed = by_tfma and not failed
    if failed:
        reason = "; ".join(decision.reason for decision in failed)
    elif blessed:
        binding = sum(decision.binding for decision in decisions)
        reason = f"TFMA and all of {binding} binding thresholds bless {format_.title}"
    else:
        reason = f"TFMA does not bless {format_.title}"
    verdict = {"blessed": blessed, "blessed_by_tfma": by_tfma, "reason": reason}
    verdict["decisions"] = [{**vars(decision), "reason": decision.reason} for decision in decisions]
    (output / DECISIONS_FILE).write_text(json.dumps(verdict, indent=2), encoding="utf-8")
    return EdgeGate(blessed=blessed, format=format_.name, reason=reason)
