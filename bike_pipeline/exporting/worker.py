"""One format in a process of its own: `python -m bike_pipeline.exporting.worker`, one job as JSON on standard input.

A job is {"verb": "export" or "measure", "format": name, "folder": where the format's files are, "rows": folder of the
rows, "source": folder of the SavedModel, "answer": the file to write}. The answer appears whole or not at all: a
process that dies leaves none.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bike_pipeline.errors import BikePipelineError
from bike_pipeline.exporting.acceptance.measurements import measure
from bike_pipeline.exporting.formats import registry
from bike_pipeline.exporting.formats.base import Columns, Source

GOLDEN, MIXED, EVALUATED, CALIBRATION = "golden", "mixed", "evaluated", "calibration"


def write_columns(folder: Path, name: str, columns: Columns) -> None:
    """Keep rows where a worker finds them."""
    np.savez(folder / f"{name}.npz", allow_pickle=False, **columns)


def read_columns(folder: Path, name: str) -> dict[str, Any]:
    """Return rows that were kept."""
    with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
        return {column: file[column] for column in file.files}


def work(job: Mapping[str, str]) -> dict[str, Any]:
    """Do one job and return the answer as plain values."""
    format_ = registry.format_of(job["format"])
    folder, rows = Path(job["folder"]), Path(job["rows"])
    if job["verb"] == "export":
        format_.export(Source(Path(job["source"]), read_columns(rows, CALIBRATION)), folder)
        return {}
    golden, evaluated = (read_columns(rows, name) for name in (GOLDEN, EVALUATED))
    measured = measure(format_, folder, golden, evaluated)
    answers = {GOLDEN: measured.golden, MIXED: measured.mixed, EVALUATED: measured.evaluated}
    write_columns(Path(job["answer"]).parent, f"{format_.name}-answers", answers)
    return {**asdict(measured.speed), "tensorflow": "tensorflow" in sys.modules}


def main() -> None:
    """Wait for a job, do it, write the answer; end without one where the caller is gone."""
    line = sys.stdin.readline()
    if not line:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    job = json.loads(line)
    try:
        answer = work(job)
    except BikePipelineError as error:
        answer = {
            "error": {"exit_code": int(error.exit_code), "what": error.what, "where": error.where, "fix": error.fix}
        }
    target = Path(job["answer"])
    aside = target.with_suffix(".writing")
    aside.write_text(json.dumps(answer), encoding="utf-8")
    aside.replace(target)


if __name__ == "__main__":
    main()
