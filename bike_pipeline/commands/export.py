"""`bike-pipeline export`: a model in other formats, proven to be the same model, in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bike_pipeline.commands.options import formats_option, json_option, model_option, settings_options
from bike_pipeline.commands.output import Parts, answer, captured, log_file, progress_on

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings
    from bike_pipeline.use_cases.export import Export


@click.command()
@settings_options
@formats_option
@model_option
@json_option
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=None,
    help="Write to this folder instead of <workspace>/exports/<model>.",
)
@click.option("--force", is_flag=True, help="Export a model that was not blessed; the exports are marked as such.")
def command(settings: Settings, as_json: bool, **options: Any) -> None:
    """Export a model to each format, check it against the SavedModel, and measure it.

    The folder holds a folder a format, parity.json and golden.json; it appears whole or not at all. Ends with exit code
    18 if a format that was asked for cannot be exported or fails its check.
    """
    from bike_pipeline.use_cases.export import export

    log = log_file(settings, "export")
    with captured(log) as screen:
        with progress_on(screen, silent=as_json):
            made = export(settings, **options)
        document = {"folder": made.folder, **made.report}
        answer(document, lambda _: [_view(made), f"log: {log}"], as_json, screen)
    made.require()


def _view(made: Export) -> Parts:
    from rich.text import Text

    from bike_pipeline.commands.parity_table import parity_table

    warning = Text("NOT blessed: the exports are marked as such; never serve them", style="bold red")
    return [parity_table(made.report), *([] if made.report["blessed"] else [warning]), f"exported to {made.folder}"]
