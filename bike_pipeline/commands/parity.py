"""`bike-pipeline parity`: how far each export is from the SavedModel, how large and how fast it is, in one run."""

from __future__ import annotations

import json
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bike_pipeline.commands.export_run import export_options
from bike_pipeline.commands.options import settings_options

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings


@click.command()
@settings_options
@export_options
def command(settings: Settings, formats: str | None, model: str | None, as_json: bool) -> None:
    """Measure the parity matrix of a model: every format against the SavedModel, in one run.

    Each format is exported anew and loaded in a process of its own. Columns: largest and mean difference on the golden
    rows, the worst of them, RMSE and MAE on the eval split, size, cold start, latency of one row and throughput with
    1,024 rows a call.
    """
    from bike_pipeline.commands.export_run import chosen_formats, exported
    from bike_pipeline.commands.output import console_on
    from bike_pipeline.log_capture import captured
    from bike_pipeline.use_cases.model_files import model_to_export

    chosen = chosen_formats(settings, formats)
    log_file = settings.logs_path / f"parity-{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}.log"
    with captured(log_file) as screen, tempfile.TemporaryDirectory(prefix="bike-parity-") as folder:
        console = console_on(screen)
        found = model_to_export(settings, model)
        report = exported(settings, chosen, found, Path(folder), None if as_json else console).as_json()
        if as_json:
            screen.write(json.dumps(report, indent=2) + "\n")
            return
        from bike_pipeline.commands.parity_table import parity_table

        console.print(f"model {found.model_id}, {report['golden']['rows']:,} golden rows, {report['eval_rows']:,} rows "
                      "of the eval split")  # fmt: skip
        console.print(parity_table(report))
        console.print(f"log: {log_file}", soft_wrap=True)
