"""An export run: every format exported, loaded, held against the SavedModel, measured and accepted or not."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bike_pipeline import features, progress
from bike_pipeline.errors import BikePipelineError, ExportError, MissingExtraError, first_words
from bike_pipeline.exporting import workers
from bike_pipeline.exporting.acceptance import quality
from bike_pipeline.exporting.acceptance import report as reports
from bike_pipeline.exporting.acceptance.measurements import Measurement, Speed, measure
from bike_pipeline.exporting.acceptance.parity import compare, not_finite_fault
from bike_pipeline.exporting.acceptance.report import SAVED_MODEL, EdgeGate, ExportReport, FormatReport, size_and_sha256
from bike_pipeline.exporting.formats import frozen_graph
from bike_pipeline.exporting.formats.base import Columns, Format, Source
from bike_pipeline.modeling import golden, slice_sums
from bike_pipeline.settings.evaluation import EvaluationSettings
from bike_pipeline.settings.exporting import ExportingSettings

# What the rows of the eval split must hold: the model's inputs, the label, and what slices are taken by.
EVALUATED_COLUMNS = tuple(dict.fromkeys((*(f.name for f in features.MODEL_INPUTS), *slice_sums.COLUMNS)))


class _Run:
    """What was made and measured of each format, or why not.

    This process converts what TensorFlow converts; the workers measure beside it, one format after the other.
    """

    def __init__(
        self, source: Source, inputs: Columns, golden_rows: Columns, folder: Path, saved_model_here: bool
    ) -> None:
        assert source.shared
        self._source, self._inputs, self._golden, self._shared = source, inputs, golden_rows, source.shared
        self._saved_model_here, self.folder = saved_model_here, folder
        self.failures: dict[str, str] = {}
        self.not_here: set[str] = set()
        self.measured: dict[str, Measurement] = {}

    def of(self, formats: Sequence[Format], seconds: float) -> None:
        """Export and measure formats, of which the first is the SavedModel."""
        for name, columns in (
            (workers.GOLDEN, self._golden),
            (workers.EVALUATED, self._inputs),
            (workers.CALIBRATION, self._source.calibration),
        ):
            workers.write_columns(self._shared, name, columns)
        total = 2 * len(formats)
        here, apart = ([f for f in formats if f.in_process is wanted] for wanted in (True, False))
        with workers.Workers(self._shared, seconds) as process:
            for number, format_ in enumerate((*here, *apart)):
                if number == len(here):
                    # What other libraries export is handed over at once.
                    frozen_graph.share(self._source)
                    for other in apart:
                        (self.folder / other.name).mkdir()
                        self._submit(process, other, "export")
                progress.report(number / total, f"exporting {format_.title}")
                if self._attempt(self._export, process, format_) and format_.name not in self.measured:
                    self._submit(process, format_, "measure")
            for number, format_ in enumerate(formats, start=len(formats)):
                progress.report(number / total, f"measuring {format_.title}")
                if format_.name not in self.failures and format_.name not in self.measured:
                    self._attempt(self._take_answers, process, format_)
            for name in (f"{format_.name}-{verb}" for format_ in formats for verb in ("export", "measure")):
                if output := process.output(name).strip():
                    logging.getLogger(__name__).info("%s: %s", name, output)

    def _attempt(
        self, step: Callable[[workers.Workers, Format], None], process: workers.Workers, format_: Format
    ) -> bool:
        """Take a step and return whether it succeeded; whatever a library raises costs its own format only."""
        try:
            step(process, format_)
        except Exception as error:  # noqa: BLE001 (as it says)
            exported = (self.folder / format_.name / format_.file).is_file()
            self.failures[format_.name] = _reason(
                error, "it cannot be loaded" if exported else f"it wrote no {format_.file}"
            )
            if isinstance(error, MissingExtraError):
                self.not_here.add(format_.name)
            return False
        return True

    def _submit(self, process: workers.Workers, format_: Format, verb: workers.Verb) -> None:
        process.submit(f"{format_.name}-{verb}", verb, format_, self.folder / format_.name, self._source)

    def _export(self, process: workers.Workers, format_: Format) -> None:
        target = self.folder / format_.name
        if format_.in_process:
            target.mkdir()
            format_.export(self._source, target)
        else:
            process.result(f"{format_.name}-export")
        size_and_sha256(target, format_.file)
        if format_.name == SAVED_MODEL and self._saved_model_here:
            self.measured[format_.name] = measure(lambda: self._source.loaded, self._golden, self._inputs)

    def _take_answers(self, process: workers.Workers, format_: Format) -> None:
        speed = process.result(f"{format_.name}-measure")
        del speed["tensorflow"]
        found = workers.read_columns(self._shared, f"{format_.name}-answers")
        self.measured[format_.name] = Measurement(**found, speed=Speed(**speed))


def _reason(error: Exception, otherwise: str) -> str:
    """Return why a format failed, in words; what is not foreseen goes to the log with its traceback."""
    if isinstance(error, BikePipelineError):
        return str(error) if isinstance(error, MissingExtraError) else str(error).rstrip(".")
    if isinstance(error, FileNotFoundError):
        return otherwise
    logging.getLogger(__name__).error("an export failed", exc_info=error)
    return f"{otherwise} ({type(error).__name__}: {first_words(error)})"


def run(
    formats: Sequence[Format],
    source: Source,
    evaluated: Columns,
    settings: ExportingSettings,
    evaluation: EvaluationSettings,
    folder: Path,
    *,
    model_id: int,
    blessed: bool,
    saved_model_here: bool,
) -> ExportReport:
    """Export, load, check, measure and accept every format, and write it with `golden.json` and `parity.json`.

    The SavedModel is among the formats. `evaluated` holds rows of the eval split, each of `EVALUATED_COLUMNS` of shape
    (rows,); `evaluation` is the gate in front of serving, which devices are held to as well. With `saved_model_here`
    the SavedModel is measured in this process, which has loaded TensorFlow already; else in one of its own, whose cold
    start holds the seconds of TensorFlow's import.

    Raises:
        ExportError: the SavedModel itself cannot be exported or loaded: there is nothing to hold others against.
    """
    golden_rows = golden.golden_rows(settings.golden_rows)
    ordered = sorted(formats, key=lambda format_: format_.name != SAVED_MODEL)
    with tempfile.TemporaryDirectory(prefix="bike-exports-") as shared:
        inputs = {f.name: evaluated[f.name] for f in features.MODEL_INPUTS}
        done = _Run(replace(source, shared=Path(shared)), inputs, golden_rows, folder, saved_model_here)
        done.of(ordered, settings.timeout)
    if SAVED_MODEL in done.failures:
        raise ExportError(
            f"the SavedModel itself cannot be exported: {done.failures[SAVED_MODEL]}",
            where=str(source.saved_model),
            fix="train again with --no-cache",
        )
    reference = done.measured[SAVED_MODEL]
    if fault := not_finite_fault(golden.with_broken_rows(golden_rows), reference):
        raise ExportError(
            f"the SavedModel {fault}",
            where=str(source.saved_model),
            fix="run the pipeline: it trains a model that answers NaN there, which models of earlier releases do not",
        )
    answers = {name: measured.evaluated for name, measured in done.measured.items()}
    sums = quality.sums_by_format(source.saved_model, evaluated, answers)
    written = reports.write_golden(folder, golden_rows, reference.golden, sums.target.answer)
    entries = {}
    for format_ in formats:
        entry = FormatReport(
            passed=False,
            reason=done.failures.get(format_.name, ""),
            title=format_.title,
            file=format_.file,
            precision=format_.precision,
            own_process=not (saved_model_here and format_.name == SAVED_MODEL),
            not_here=format_.name in done.not_here,
        )
        if format_.name in done.measured:
            entry = _judged(entry, format_.name, done, sums, golden_rows, settings, evaluation)
        entries[format_.name] = entry
    report = ExportReport(formats=entries, golden=written, eval_rows=sums.rows, model_id=model_id, blessed=blessed)
    # TFMA is imported here, beside nothing that is measured.
    from bike_pipeline.exporting.acceptance.edge_gate import edge_gates

    gates = edge_gates(report, sums, formats, evaluation, settings, source.saved_model, folder)
    if not blessed:
        gates = {name: EdgeGate(blessed=False, format=name, reason="the model is not blessed") for name in gates}
    if gates:
        report = replace(report, edge_gate=next(iter(gates.values())), edge_gates=gates)
    reports.write_report(report, folder)
    return report


def _judged(
    entry: FormatReport,
    name: str,
    done: _Run,
    sums: slice_sums.Measured,
    golden_rows: Columns,
    settings: ExportingSettings,
    evaluation: EvaluationSettings,
) -> FormatReport:
    measured, reference = done.measured[name], done.measured[SAVED_MODEL]
    parity = compare(reference.golden, measured.golden)
    errors = quality.quality_of(sums, name, evaluation.min_rows)
    passed, reason = quality.decide(entry.precision, parity, errors, settings)
    if passed and (fault := not_finite_fault(golden.with_broken_rows(golden_rows), measured)):
        passed, reason = False, f"it {fault}"
    if name == SAVED_MODEL and passed:
        reason = "every other format is held against it"
    size, sha256 = size_and_sha256(done.folder / name, entry.file)
    worst = parity.worst_row
    row: dict[str, Any] = {column: float(str(values[worst])) for column, values in golden_rows.items()}
    return replace(
        entry,
        passed=passed,
        reason=reason,
        size_bytes=size,
        sha256=sha256,
        parity=parity,
        worst_golden_row={**row, "expected": float(reference.golden[worst]), "answer": float(measured.golden[worst])},
        **{**vars(errors), **vars(measured.speed), "worst_slice": errors.worst_slice or None},
    )
