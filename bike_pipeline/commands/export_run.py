"""What `export` and `parity` share: one run over the formats of a model, each measured in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from bike_pipeline.exporting.acceptance.report import Report
    from bike_pipeline.exporting.formats.base import Format
    from bike_pipeline.settings import Settings
    from bike_pipeline.use_cases.model_files import ModelToExport

ALL = "all"


def export_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--formats`, `--model` and `--json`."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the report as JSON and nothing else."),
        click.option(
            "--model",
            metavar="MODEL",
            default=None,
            help="A served version, a model's number or a pushed folder; by default the model that serves now.",
        ),
        click.option(
            "--formats",
            metavar="A,B",
            default=None,
            help="Formats by name, or all that are known; by default those of exporting.formats.",
        ),
    ):
        function = option(function)
    return function


def chosen_formats(settings: Settings, formats: str | None) -> list[Format]:
    """Return the formats that are asked for, the SavedModel first: the others are held against it.

    Raises:
        ConfigurationError: one of them does not exist.
    """
    from bike_pipeline.exporting.acceptance.report import SAVED_MODEL
    from bike_pipeline.exporting.formats import registry

    if formats is None:
        names = list(settings.exporting.formats)
    elif formats.strip() == ALL:
        # The compressed model comes of a run only: it is trained.
        names = [*settings.exporting.formats, *(name for name in registry.names() if name != "compressed")]
    else:
        names = [name.strip() for name in formats.split(",") if name.strip()]
    return registry.formats_of(list(dict.fromkeys((SAVED_MODEL, *names))))


def exported(
    settings: Settings, formats: list[Format], model: ModelToExport, folder: Path, console: Console | None
) -> Report:
    """Export, check and measure a model's formats into a folder that exists, and write `parity.json` there.

    Raises:
        ExportError: the SavedModel itself cannot be exported.
    """
    from bike_pipeline.lean_imports import lean_imports

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "0")
    with _shown_progress(console), lean_imports(google_cloud=True):
        from bike_pipeline.exporting.acceptance.decision import Limits
        from bike_pipeline.exporting.acceptance.edge_gate import with_edge_gate
        from bike_pipeline.exporting.acceptance.report import EdgeGate, write_report
        from bike_pipeline.exporting.export_run import Rows, build_matrix
        from bike_pipeline.exporting.formats.base import Source

        limits = Limits.of(settings.exporting, settings.evaluation)
        matrix = build_matrix(
            formats,
            Source(model.saved_model, model.calibration),
            Rows(model.evaluated),
            limits,
            folder,
            golden_rows=settings.exporting.golden_rows,
            seconds=settings.exporting.timeout,
            model_id=model.model_id,
            blessed=model.blessed,
            saved_model_here=False,
        )
        report = with_edge_gate(matrix, formats, settings.evaluation, limits, model.saved_model, folder)
        if not model.blessed:
            refused = EdgeGate(blessed=False, format=report.edge_gate.format, reason="the model is not blessed")
            report = replace(report, edge_gate=refused, edge_gates=dict.fromkeys(report.edge_gates, refused))
        write_report(report, folder)
    return report


@contextmanager
def _shown_progress(console: Console | None) -> Iterator[None]:
    from bike_pipeline import progress

    if console is None or not console.is_terminal:
        yield
        return
    with console.status("loading TensorFlow") as status, progress.listening(lambda _, text: status.update(text)):
        yield
