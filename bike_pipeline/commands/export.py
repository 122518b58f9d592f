"""`bike-pipeline export`: a model in other formats, proven to be the same model, in a folder."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bike_pipeline.commands.export_run import export_options
from bike_pipeline.commands.options import settings_options
from bike_pipeline.errors import ExportError, StorageError

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings


@click.command()
@settings_options
@export_options
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=None,
    help="Write to this folder instead of <workspace>/exports/<model>.",
)
@click.option("--force", is_flag=True, help="Export a model that was not blessed; the exports are marked as such.")
def command(
    settings: Settings, formats: str | None, model: str | None, as_json: bool, output: Path | None, force: bool
) -> None:
    """Export a model to each format, check it against the SavedModel, and measure it.

    The folder holds a folder a format, parity.json and golden.json; it appears whole or not at all. Ends with exit code
    18 where a format that was asked for cannot be exported or fails its check.
    """
    from bike_pipeline.commands.export_run import ALL, chosen_formats, exported
    from bike_pipeline.commands.output import console_on
    from bike_pipeline.log_capture import captured
    from bike_pipeline.use_cases.model_files import model_to_export

    chosen = chosen_formats(settings, formats)
    log_file = settings.logs_path / f"export-{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}.log"
    with captured(log_file) as screen:
        console = console_on(screen)
        found = model_to_export(settings, model)
        if not found.blessed and not force:
            raise ExportError(
                f"model {found.model_id} was not blessed",
                fix="export another one, or this one marked as such with --force",
            )
        target = (output or settings.workspace_path / "exports" / str(found.model_id)).absolute()
        _recover(target)
        _refuse_foreign(target)
        aside = target.with_name(f".{target.name}.writing-{os.getpid()}")
        try:
            aside.mkdir(parents=True)
            report = exported(settings, chosen, found, aside, None if as_json else console).as_json()
            _put(aside, target)
        except OSError as error:
            raise StorageError(
                f"cannot write the exports ({error.strerror or error})",
                where=str(target),
                fix="free space or grant write permission there; what was there before is untouched",
            ) from None
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        if as_json:
            screen.write(json.dumps({"folder": str(target), **report}, indent=2) + "\n")
        else:
            from bike_pipeline.commands.parity_table import parity_table

            console.print(parity_table(report))
            if not found.blessed:
                console.print("NOT blessed: the exports are marked as such; never serve them", style="bold red")
            console.print(f"exported to {target}", soft_wrap=True)
            console.print(f"log: {log_file}", soft_wrap=True)
    _fail(report, tolerant=formats == ALL)


def _refuse_foreign(target: Path) -> None:
    """Stop before anything is replaced that is not an export."""
    from bike_pipeline.model_registry.layout import PARITY_FILE

    if target.exists() and not (target / PARITY_FILE).is_file() and not (target.is_dir() and not any(target.iterdir())):
        raise StorageError(
            "there is something that is no export", where=str(target), fix="name another folder with --output"
        )


def _before(target: Path) -> Path:
    """Return where the exports that are being replaced stand for a moment."""
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


def _fail(report: dict[str, Any], tolerant: bool) -> None:
    """Raise where a format failed; one whose extra is not installed counts only where it was asked for by name."""
    failed = [e for e in report["formats"].values() if not e["passed"] and not (tolerant and e["not_here"])]
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise ExportError(
            f"{failed[0]['title']} is not exported: {failed[0]['reason'].rstrip('.')}{more}",
            fix="the formats that passed are in the folder",
        )
