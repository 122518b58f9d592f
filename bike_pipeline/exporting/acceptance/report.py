"""What came of every format: `parity.json` and `golden.json`, beside the exports and in the pushed model.

Of a pushed model, `assets.extra/exports` holds the formats that passed. The SavedModel is not among them: it is the
version's folder itself.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bike_pipeline import features
from bike_pipeline.errors import ExportError
from bike_pipeline.exporting.acceptance.parity import Parity
from bike_pipeline.exporting.formats.base import Columns, Precision, Predictions
from bike_pipeline.model_registry.layout import EXPORTS_FOLDER, PARITY_FILE, exports_fingerprint
from bike_pipeline.modeling import golden
from bike_pipeline.storage.plain_json import finite

GOLDEN_FILE = "golden.json"
# Lies beside the exports of a model that was not blessed.
NOT_BLESSED_FILE = "NOT_BLESSED"
SAVED_MODEL = "saved_model"


@dataclass(frozen=True)
class FormatReport:
    """What came of one format. What was not come to is None.

    Attributes:
        passed: whether it may be pushed.
        reason: why, in words.
        title: what people call the format.
        file: the file that a runtime loads, relative to the format's folder.
        precision: what its numbers are kept in.
        size_bytes: size of all its files.
        sha256: SHA-256 of `file`.
        parity: how far it is from the SavedModel on the golden rows.
        worst_golden_row: the golden row with the largest relative difference, the SavedModel's answer to it
            ("expected") and its own ("answer"), in rentals an hour.
        mae: this and the next four, see `quality.Quality`; the worst slice is None where no slice decides.
        cold_start_ms: this and the next two, see `measurements.Speed`.
        own_process: whether it was measured in a process of its own; where not, the cold start is without the import
            of TensorFlow.
        not_here: whether it failed because an optional part that it needs is not installed on this machine.
    """

    passed: bool
    reason: str
    title: str
    file: str
    precision: Precision
    size_bytes: int | None = None
    sha256: str | None = None
    parity: Parity | None = None
    worst_golden_row: dict[str, float] | None = None
    mae: float | None = None
    rmse: float | None = None
    mae_increase: float | None = None
    worst_slice: str | None = None
    worst_slice_mae_increase: float | None = None
    cold_start_ms: float | None = None
    latency_us: float | None = None
    rows_per_second: float | None = None
    own_process: bool = True
    not_here: bool = False


@dataclass(frozen=True)
class EdgeGate:
    """Whether the model may go to devices: TFMA's verdict and every binding threshold, on a LiteRT model."""

    blessed: bool
    format: str
    reason: str


@dataclass(frozen=True)
class ExportReport:
    """What came of all formats of one model."""

    formats: dict[str, FormatReport]
    golden: dict[str, Any]
    eval_rows: int
    model_id: int
    blessed: bool
    reason: str = ""
    edge_gate: EdgeGate = EdgeGate(blessed=False, format="", reason="no LiteRT format was exported")
    edge_gates: dict[str, EdgeGate] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values; None for what is not finite, since JSON has no name for that."""
        plain: dict[str, Any] = finite(asdict(self))
        return plain


def write_report(report: ExportReport, folder: Path) -> None:
    """Write `parity.json`, and a mark where the model was not blessed."""
    (folder / PARITY_FILE).write_text(json.dumps(report.as_json(), indent=2) + "\n", encoding="utf-8")
    if not report.blessed:
        (folder / NOT_BLESSED_FILE).write_text("This model was not blessed: never serve it.\n", encoding="utf-8")


def write_golden(folder: Path, rows: Columns, answers: Predictions, answer: str = features.LABEL) -> dict[str, Any]:
    """Write the golden rows and the SavedModel's answers, shape (rows,), as `golden.json`; return what a report says.

    `answer` is what the answers are called (see `features.ANSWERS`).
    Numbers stand in the shortest form that gives the same float32 again. The broken rows stand in `not_finite`, a
    number that is not finite as a text, since JSON has no name for it; the answer to each of them is NaN.
    """
    parts = [{n: [_shortest(v) for v in values] for n, values in part.items()} for part in (rows, golden.broken_rows())]
    kept = {"columns": parts[0], answer: [_shortest(v) for v in answers]}
    kept[golden.NOT_FINITE_KEY] = {"columns": parts[1]}
    content = json.dumps(kept, allow_nan=False).encode()
    (folder / GOLDEN_FILE).write_bytes(content)
    counted = {"rows": len(answers), "not_finite_rows": len(parts[1][features.HOUR]), "seed": golden.SEED}
    return {**counted, "file": GOLDEN_FILE, "sha256": hashlib.sha256(content).hexdigest()}


def _shortest(value: Any) -> int | float | str:
    if getattr(value, "dtype", None) is not None and value.dtype.kind == "i":
        return int(value)
    number = float(str(value))
    return number if math.isfinite(number) else json.dumps(number)


def passed(exports: Path) -> list[str]:
    """Return the names of the formats that may be pushed, as the `parity.json` of a folder of exports has them.

    Raises:
        ExportError: it is not there or damaged.
    """
    path = exports / PARITY_FILE
    try:
        report = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ExportError(
            "there are no exports", where=str(path), fix="run the pipeline, or `bike-pipeline export`"
        ) from None
    except (OSError, ValueError) as error:
        raise ExportError(f"cannot read it ({error})", where=str(path), fix="export the model again") from None
    return [name for name, entry in report["formats"].items() if entry["passed"] is True]


def add_to_version(exports: Path, version: Path) -> None:
    """Copy the formats that passed, with the report and the golden rows, into the folder of a version."""
    target = version / EXPORTS_FOLDER
    names = passed(exports)
    target.mkdir(parents=True)
    for name in names:
        if name != SAVED_MODEL:
            shutil.copytree(exports / name, target / name)
    for file in (PARITY_FILE, GOLDEN_FILE):
        shutil.copyfile(exports / file, target / file)


def fingerprint_when_pushed(exports: Path) -> str:
    """Return the fingerprint that these exports have in a version's folder, where only what passed is."""
    with tempfile.TemporaryDirectory(prefix="bike-push-") as folder:
        add_to_version(exports, Path(folder))
        return exports_fingerprint(folder)


def size_and_sha256(folder: Path, file: str) -> tuple[int, str]:
    """Return the size of all files of an export, in bytes, and the SHA-256 of the one that a runtime loads.

    Raises:
        FileNotFoundError: the export did not write that file.
    """
    with (folder / file).open("rb") as opened:
        sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()), sha256


def size_in_words(size_bytes: float) -> str:
    """Return a size for people."""
    return f"{size_bytes / 1024:,.0f} kB"


def summary(report: Mapping[str, Any]) -> str:
    """Return which formats passed, with their sizes, which did not, and the verdict on devices, in one line."""
    if report["reason"]:
        return str(report["reason"])
    formats = report["formats"]
    good = [f"{e['title']} {size_in_words(e['size_bytes'])}" for e in formats.values() if e["passed"]]
    bad = [f"{e['title']} NOT: {e['reason']}" for e in formats.values() if not e["passed"]]
    edge = "edge: blessed" if report["edge_gate"]["blessed"] else f"edge: NOT blessed, {report['edge_gate']['reason']}"
    return "; ".join(filter(None, (", ".join(good), *bad, edge)))
