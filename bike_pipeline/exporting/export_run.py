"""The parity matrix: every format exported, loaded, held against the SavedModel, measured and decided, in one run."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from bike_pipeline import features, progress
from bike_pipeline.errors import BikePipelineError, ExportError, MissingExtraError
from bike_pipeline.exporting import worker
from bike_pipeline.exporting.acceptance import not_finite, quality
from bike_pipeline.exporting.acceptance.decision import Limits, decide
from bike_pipeline.exporting.acceptance.measurements import Measured, Speed, measure
from bike_pipeline.exporting.acceptance.parity import compare
from bike_pipeline.exporting.acceptance.report import SAVED_MODEL, FormatReport, Report, size_and_sha256, write_golden
from bike_pipeline.exporting.formats.base import Columns, Format, Predictions, Source
from bike_pipeline.exporting.processes import WaitingProcess
from bike_pipeline.modeling import golden, slice_sums

# What the rows of the eval split must hold: the model's inputs, the label, and what slices are taken by.
EVALUATED_COLUMNS = tuple(dict.fromkeys((*(f.name for f in features.MODEL_INPUTS), *slice_sums.COLUMNS)))


@dataclass(frozen=True)
class Rows:
    """The rows that formats are checked with.

    Attributes:
        evaluated: rows of the eval split, each of `EVALUATED_COLUMNS` of shape (rows,).
    """

    evaluated: dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Matrix:
    """What came of all formats.

    Attributes:
        report: the report, the edge gate not decided yet.
        sums: errors by slice and format, of every format that answered.
    """

    report: Report
    sums: slice_sums.Measured


class _Exports:
    """One run over the formats."""

    def __init__(self, source: Source, rows: Rows, folder: Path, work: Path, seconds: float) -> None:
        self.source, self.rows, self.folder, self.seconds = source, rows, folder, seconds
        self._work = work
        self.failures: dict[str, str] = {}
        self.not_here: set[str] = set()
        self.measured: dict[str, Measured] = {}

    def export(self, format_: Format) -> bool:
        """Export a format and return whether it did."""
        target = self.folder / format_.name
        target.mkdir()
        try:
            if format_.in_process:
                format_.export(self.source, target)
            else:
                with WaitingProcess(self._work, f"{format_.name}-export") as process:
                    process.do(self._job(format_, "export"), self.seconds)
            size_and_sha256(target, format_.file)
        except Exception as error:  # noqa: BLE001 (whatever a library raises costs its own format only)
            self._failed(format_, error, f"it wrote no {format_.file}")
            return False
        return True

    def measure_here(self, format_: Format, golden_rows: Columns) -> None:
        """Measure a format in this process."""
        self._take(format_, lambda: measure(format_, self.folder / format_.name, golden_rows, self._inputs()))

    def measure(self, format_: Format, process: WaitingProcess) -> None:
        """Measure a format in a process of its own."""

        def answers() -> Measured:
            speed = process.do(self._job(format_, "measure"), self.seconds)
            found = worker.read_columns(self._work, f"{format_.name}-answers")
            del speed["tensorflow"]
            return Measured(found[worker.GOLDEN], found[worker.MIXED], found[worker.EVALUATED], Speed(**speed))

        self._take(format_, answers)

    def _take(self, format_: Format, answers: Any) -> None:
        try:
            self.measured[format_.name] = answers()
        except Exception as error:  # noqa: BLE001 (as above)
            self._failed(format_, error, "it cannot be loaded")

    def _failed(self, format_: Format, error: Exception, otherwise: str) -> None:
        self.failures[format_.name] = _reason(error, otherwise)
        if isinstance(error, MissingExtraError):
            self.not_here.add(format_.name)

    def _inputs(self) -> Columns:
        return {f.name: self.rows.evaluated[f.name] for f in features.MODEL_INPUTS}

    def keep_rows(self, golden_rows: Columns) -> None:
        """Write the rows down for other processes."""
        worker.write_columns(self._work, worker.GOLDEN, golden_rows)
        worker.write_columns(self._work, worker.EVALUATED, self._inputs())
        worker.write_columns(self._work, worker.CALIBRATION, self.source.calibration)

    def _job(self, format_: Format, verb: str) -> dict[str, str]:
        return {
            "verb": verb,
            "format": format_.name,
            "folder": str(self.folder / format_.name),
            "rows": str(self._work),
            "source": str(self.source.saved_model),
        }


def _reason(error: Exception, otherwise: str) -> str:
    """Return why a format failed, in words; what is not foreseen goes to the log with its traceback."""
    if isinstance(error, BikePipelineError):
        return str(error) if isinstance(error, MissingExtraError) else str(error).rstrip(".")
    if isinstance(error, FileNotFoundError):
        return otherwise
    logging.getLogger(__name__).error("an export failed", exc_info=error)
    first = next(iter(str(error).strip().splitlines()), "")[:300]
    return f"{otherwise} ({type(error).__name__}: {first})"


def build_matrix(
    formats: Sequence[Format],
    source: Source,
    rows: Rows,
    limits: Limits,
    folder: Path,
    *,
    golden_rows: int,
    seconds: float,
    model_id: int,
    blessed: bool,
    saved_model_here: bool,
) -> Matrix:
    """Export, load, check, measure and decide every format.

    Args:
        formats: the formats, the SavedModel among them.
        source: the model.
        rows: rows for errors.
        limits: what formats are held to.
        folder: where each format's folder and `golden.json` are written; it exists.
        golden_rows: how many golden rows.
        seconds: how long a format may take in a process of its own.
        model_id: MLMD id of the model.
        blessed: whether it is blessed.
        saved_model_here: measure the SavedModel in this process, which has loaded TensorFlow already; else in one of
            its own, whose cold start holds the seconds of TensorFlow's import.

    Raises:
        ExportError: the SavedModel itself cannot be exported or loaded: there is nothing to hold others against.
    """
    asked = golden.golden_rows(golden_rows)
    first = next(format_ for format_ in formats if format_.name == SAVED_MODEL)
    others = [format_ for format_ in formats if format_.name != SAVED_MODEL]
    with tempfile.TemporaryDirectory(prefix="bike-exports-") as temporary, ExitStack() as open_:
        run = _Exports(source, rows, folder, Path(temporary), seconds)
        apart = others if saved_model_here else [first, *others]
        processes = {f.name: open_.enter_context(WaitingProcess(Path(temporary), f.name)) for f in apart}
        run.keep_rows(asked)
        done = 0

        def tell(format_: Format, verb: str) -> None:
            nonlocal done
            progress.report(done / (2 * len(formats)), f"{verb} {format_.title}")
            done += 1

        exported = []
        for format_ in (first, *others):
            tell(format_, "exporting")
            if run.export(format_):
                exported.append(format_)
        for format_ in exported:
            tell(format_, "measuring")
            if format_.name in processes:
                run.measure(format_, processes[format_.name])
            else:
                run.measure_here(format_, asked)
        for name, process in processes.items():
            if said := process.said().strip():
                logging.getLogger(__name__).info("%s: %s", name, said)
    if SAVED_MODEL in run.failures:
        raise ExportError(
            f"the SavedModel itself cannot be exported: {run.failures[SAVED_MODEL]}",
            where=str(source.saved_model),
            fix="train again with --no-cache",
        )
    if wrong := not_finite.wrong_answers(golden.with_broken_rows(asked), run.measured[SAVED_MODEL]):
        raise ExportError(
            f"the SavedModel {wrong}",
            where=str(source.saved_model),
            fix="run the pipeline: it trains a model that answers NaN there, which models of earlier releases do not",
        )
    described = write_golden(folder, asked, golden.broken_rows(), run.measured[SAVED_MODEL].golden, golden.SEED)
    sums = quality.sums_by_format(
        source.saved_model, rows.evaluated, {name: found.evaluated for name, found in run.measured.items()}
    )
    entries = {}
    for format_ in formats:
        entry = FormatReport(
            passed=False,
            reason=run.failures.get(format_.name, ""),
            title=format_.title,
            file=format_.file,
            precision=format_.precision,
            own_process=format_.name in processes,
            not_here=format_.name in run.not_here,
        )
        if format_.name in run.measured:
            entry = _entry(entry, format_.name, run, sums, asked, limits)
        entries[format_.name] = entry
    report = Report(formats=entries, golden=described, eval_rows=sums.rows, model_id=model_id, blessed=blessed)
    return Matrix(report, sums)


def _entry(
    entry: FormatReport, name: str, run: _Exports, sums: slice_sums.Measured, asked: Columns, limits: Limits
) -> FormatReport:
    measured, reference = run.measured[name], run.measured[SAVED_MODEL]
    parity = compare(reference.golden, measured.golden)
    found = quality.quality_of(sums, name, limits.min_rows)
    passed, reason = decide(entry.precision, parity, found, limits)
    if passed and (wrong := not_finite.wrong_answers(golden.with_broken_rows(asked), measured)):
        passed, reason = False, f"it {wrong}"
    if name == SAVED_MODEL and passed:
        reason = "every other format is held against it"
    size, sha256 = size_and_sha256(run.folder / name, entry.file)
    return replace(
        entry,
        passed=passed,
        reason=reason,
        size_bytes=size,
        sha256=sha256,
        parity=parity,
        worst_golden_row=_row(asked, parity.worst_row, reference.golden, measured.golden),
        mae=found.mae,
        rmse=found.rmse,
        mae_increase=found.mae_increase,
        worst_slice=found.worst_slice or None,
        worst_slice_mae_increase=found.worst_slice_mae_increase,
        cold_start_ms=measured.speed.cold_start_ms,
        latency_us=measured.speed.latency_us,
        rows_per_second=measured.speed.rows_per_second,
    )


def _row(asked: Columns, row: int, expected: Predictions, answers: Predictions) -> dict[str, float]:
    values = {name: float(str(column[row])) for name, column in asked.items()}
    return {**values, "expected": float(expected[row]), "answer": float(answers[row])}
