"""A model in other formats, each held against the SavedModel and measured in a process of its own."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bike_pipeline.errors import ExportError, StorageError

if TYPE_CHECKING:
    from bike_pipeline.exporting.formats.base import Format
    from bike_pipeline.settings import Settings
    from bike_pipeline.use_cases.model_files import ModelToExport

ALL = "all"


@dataclass(frozen=True)
class ParityMatrix:
    """What came of each format of a model; `report` is the content of `parity.json`."""

    model_id: int
    report: dict[str, Any]


@dataclass(frozen=True)
class Export(ParityMatrix):
    """A folder that holds a folder a format, `parity.json` and `golden.json`."""

    folder: str
    tolerant: bool

    def require(self) -> None:
        """Raise ExportError if a format failed; of "all" formats, one whose extra is not installed does not count."""
        formats = self.report["formats"].values()
        failed = [e for e in formats if not e["passed"] and not (self.tolerant and e["not_here"])]
        if failed:
            more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
            raise ExportError(
                f"{failed[0]['title']} is not exported: {failed[0]['reason'].rstrip('.')}{more}",
                fix="the formats that passed are in the folder",
            )


def export(
    settings: Settings,
    model: str | None = None,
    *,
    formats: Sequence[str] | None = None,
    output: Path | None = None,
    force: bool = False,
) -> Export:
    """Export a model to formats; the folder appears whole or not at all, and replaces exports that are there.

    Progress is reported to `bike_pipeline.progress`.

    Args:
        settings: limits, and the formats if none are named.
        model: see `use_cases`.
        formats: names of formats, or "all".
        output: the folder; None is <workspace>/exports/<model>.
        force: export a model that was not blessed, marked as such.

    Raises:
        ExportError: the model was not blessed, its files are gone, or the SavedModel itself cannot be exported.
        StorageError: the folder holds something else, or cannot be written.
    """
    from bike_pipeline.use_cases.model_files import model_to_export

    chosen = _formats(settings, formats)
    found = model_to_export(settings, model)
    if not found.blessed and not force:
        raise ExportError(
            f"model {found.model_id} was not blessed", fix="export another one, or this one marked as such with --force"
        )
    target = (output or settings.workspace_path / "exports" / str(found.model_id)).absolute()
    _recover(target)
    _refuse_foreign(target)
    aside = target.with_name(f".{target.name}.writing-{os.getpid()}")
    try:
        aside.mkdir(parents=True)
        report = _measured(settings, chosen, found, aside)
        _put(aside, target)
    except OSError as error:
        raise StorageError(
            f"cannot write the exports ({error.strerror or error})",
            where=str(target),
            fix="free space or grant write permission there; what was there before is untouched",
        ) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Export(found.model_id, report, str(target), tolerant=list(formats or ()) == [ALL])


def parity(settings: Settings, model: str | None = None, formats: Sequence[str] | None = None) -> ParityMatrix:
    """Measure each format of a model against the SavedModel and keep nothing; arguments and errors as of `export`."""
    from bike_pipeline.use_cases.model_files import model_to_export

    chosen = _formats(settings, formats)
    found = model_to_export(settings, model)
    with tempfile.TemporaryDirectory(prefix="bike-parity-") as folder:
        return ParityMatrix(found.model_id, _measured(settings, chosen, found, Path(folder)))


def _formats(settings: Settings, formats: Sequence[str] | None) -> list[Format]:
    """Return formats, the SavedModel first: the others are held against it."""
    from bike_pipeline.exporting.acceptance.report import SAVED_MODEL
    from bike_pipeline.exporting.formats import registry

    names = settings.exporting.formats if formats is None else formats
    if list(names) == [ALL]:
        # The compressed model comes of a run only: it is trained.
        names = [*settings.exporting.formats, *(name for name in registry.names() if name != "compressed")]
    return registry.formats_of(list(dict.fromkeys((SAVED_MODEL, *names))))


def _measured(settings: Settings, formats: list[Format], model: ModelToExport, folder: Path) -> dict[str, Any]:
    """Export, check and measure formats into a folder that exists; write `parity.json` there and return it."""
    from bike_pipeline.lean_imports import lean_imports

    with lean_imports(google_cloud=True):
        from bike_pipeline.exporting import export_run
        from bike_pipeline.exporting.formats.base import Source

        report = export_run.run(
            formats,
            Source(model.saved_model, model.calibration),
            model.evaluated,
            settings.exporting,
            settings.evaluation,
            folder,
            model_id=model.model_id,
            blessed=model.blessed,
            saved_model_here=False,
        )
    return report.as_json()


def _refuse_foreign(target: Path) -> None:
    """Stop before anything is replaced that is not an export."""
    from bike_pipeline.model_registry.layout import PARITY_FILE

    if target.exists() and not (target / PARITY_FILE).is_file() and not (target.is_dir() and not any(target.iterdir())):
        raise StorageError(
            "there is something that is no export", where=str(target), fix="name another folder with --output"
        )


def _before(target: Path) -> Path:
    """Return the place of the exports that are being replaced, for a moment."""
    return target.with_name(f".{target.name}.before")


def _recover(target: Path) -> None:
    """Finish or take back a replacement that was killed half-way."""
    before = _before(target)
    if before.is_dir() and not target.exists():
        before.rename(target)
    shutil.rmtree(before, ignore_errors=True)


def _put(aside: Path, target: Path) -> None:
    """Let a folder take the place of another one; what a killed process left is put right by `_recover`."""
    before = _before(target)
    if target.exists():
        target.rename(before)
    try:
        aside.rename(target)
    except OSError:
        if before.exists():
            before.rename(target)
        raise
    shutil.rmtree(before, ignore_errors=True)
