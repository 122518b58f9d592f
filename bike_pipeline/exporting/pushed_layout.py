"""From the exports of a run to those of a pushed model: `assets.extra/exports` in the version's folder.

Only formats that passed are there. The SavedModel is not: it is the version's folder itself.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from bike_pipeline.errors import ExportError
from bike_pipeline.exporting.acceptance.report import GOLDEN_FILE, SAVED_MODEL
from bike_pipeline.model_registry.layout import EXPORTS_FOLDER, PARITY_FILE


def read_report(exports: Path) -> dict[str, Any]:
    """Return the `parity.json` of a folder of exports as plain values (see `report.Report`).

    Raises:
        ExportError: it is not there or damaged.
    """
    path = exports / PARITY_FILE
    try:
        report: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ExportError(
            "there are no exports", where=str(path), fix="run the pipeline, or `bike-pipeline export`"
        ) from None
    except (OSError, ValueError) as error:
        raise ExportError(f"cannot read it ({error})", where=str(path), fix="export the model again") from None
    return report


def passed(exports: Path) -> list[str]:
    """Return the names of the formats that may be pushed."""
    return [name for name, entry in read_report(exports)["formats"].items() if entry["passed"] is True]


def add(exports: Path, version: Path) -> None:
    """Copy the formats that passed, with the report and the golden rows, into the folder of a version."""
    target = version / EXPORTS_FOLDER
    names = passed(exports)
    target.mkdir(parents=True)
    for name in names:
        if name != SAVED_MODEL:
            shutil.copytree(exports / name, target / name)
    for file in (PARITY_FILE, GOLDEN_FILE):
        shutil.copyfile(exports / file, target / file)


def folder_of(version: Path, name: str) -> Path:
    """Return where a format lies in the folder of a pushed version."""
    return version if name == SAVED_MODEL else version / EXPORTS_FOLDER / name
