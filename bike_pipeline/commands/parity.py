"""`bike-pipeline parity`: how far each export is from the SavedModel, how large and how fast it is, in one run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bike_pipeline.commands.options import formats_option, json_option, model_option, settings_options
from bike_pipeline.commands.output import Parts, answer, captured, log_file, progress_on

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bike_pipeline.settings import Settings
    from bike_pipeline.use_cases.export import ParityMatrix


@click.command()
@settings_options
@formats_option
@model_option
@json_option
def command(settings: Settings, formats: Sequence[str] | None, model: str | None, as_json: bool) -> None:
    """Measure the parity matrix of a model: every format against the SavedModel, in one run.

    Each format is exported anew and loaded in a process of its own. Columns: largest and mean difference on the golden
    rows, the worst of them, RMSE and MAE on the eval split, size, cold start, latency of one row and throughput with
    1,024 rows a call.
    """
    from bike_pipeline.use_cases.export import parity

    log = log_file(settings, "parity")
    with captured(log) as screen:
        with progress_on(screen, silent=as_json):
            found = parity(settings, model, formats)
        answer(found.report, lambda _: [_view(found), f"log: {log}"], as_json, screen)


def _view(found: ParityMatrix) -> Parts:
    from bike_pipeline.commands.parity_table import parity_table

    golden, evaluated = found.report["golden"]["rows"], found.report["eval_rows"]
    rows = f"{golden:,} golden rows, {evaluated:,} rows of the eval split"
    return [f"model {found.model_id}, {rows}", parity_table(found.report)]
