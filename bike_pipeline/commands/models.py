"""Commands about trained models: `models`, `export`, `parity`, `compress`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bike_pipeline.commands.options import cluster_option, formats_option, json_option, model_option, settings_options
from bike_pipeline.commands.output import BLESSED, METRIC_NAMES, Parts, answer, captured, log_file, progress_on, table
from bike_pipeline.use_cases.compression import METHODS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from bike_pipeline.exporting.compression.rule import Candidate
    from bike_pipeline.lineage.store.entities import ModelRecord
    from bike_pipeline.settings import Settings
    from bike_pipeline.settings.exporting import Method
    from bike_pipeline.use_cases.compression import Compression
    from bike_pipeline.use_cases.export import Export, ParityMatrix


@click.command()
@settings_options
@cluster_option
@json_option
def models_command(settings: Settings, cluster: bool, as_json: bool) -> None:
    """List every trained model, from ML Metadata: its span, its metrics, whether it is blessed, what it serves as."""
    from bike_pipeline.use_cases.lineage import models

    answer(models(settings, cluster=cluster), _models_view, as_json)


def _models_view(found: list[ModelRecord]) -> Parts:
    rows = []
    for model in found:
        served = "-" if model.served_version is None else str(model.served_version)
        rows.append(
            (
                model.model_id,
                f"{model.trained:%Y-%m-%d %H:%M:%S}",
                f"{model.span} v{model.version}",
                BLESSED[model.blessed],
                f"{served} (serving)" if model.serving else f"{served} (NOT serving)" if model.wrong else served,
                *(f"{model.metrics[m]:.3f}" if m in model.metrics else "-" for m in METRIC_NAMES),
            )
        )
    names = tuple(METRIC_NAMES.values())
    wrong = [f"version {m.served_version} is promoted and cannot serve: {m.wrong}" for m in found if m.wrong]
    return [table(("model", "trained (UTC)", "span", "blessed", "served as", *names), rows, right=names), *wrong]


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
def export_command(settings: Settings, as_json: bool, **options: Any) -> None:
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
        answer(document, lambda _: [_export_view(made), f"log: {log}"], as_json, screen)
    made.require()


def _export_view(made: Export) -> Parts:
    from rich.text import Text

    from bike_pipeline.commands.parity_table import parity_table

    warning = Text("NOT blessed: the exports are marked as such; never serve them", style="bold red")
    return [parity_table(made.report), *([] if made.report["blessed"] else [warning]), f"exported to {made.folder}"]


@click.command()
@settings_options
@formats_option
@model_option
@json_option
def parity_command(settings: Settings, formats: Sequence[str] | None, model: str | None, as_json: bool) -> None:
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
        answer(found.report, lambda _: [_parity_view(found), f"log: {log}"], as_json, screen)


def _parity_view(found: ParityMatrix) -> Parts:
    from bike_pipeline.commands.parity_table import parity_table

    golden, evaluated = found.report["golden"]["rows"], found.report["eval_rows"]
    rows = f"{golden:,} golden rows, {evaluated:,} rows of the eval split"
    return [f"model {found.model_id}, {rows}", parity_table(found.report)]


def _names(_: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in (value or "").split(",") if name.strip()))
    if parameter.name == "methods" and (unknown := sorted(set(names) - set(METHODS))):
        raise click.BadParameter(f"there is no method '{unknown[0]}'; choose from {', '.join(METHODS)}")
    return names


@click.command()
@settings_options
@click.option("--methods", callback=_names, metavar="NAME,…", help=f"Of {', '.join(METHODS)}; by default all of them.")
@click.option("--formats", callback=_names, metavar="NAME,…", help="Export formats instead of the settings'.")
@json_option
@click.argument("model", required=False)
def compress_command(
    settings: Settings, methods: tuple[Method, ...], formats: tuple[str, ...], as_json: bool, model: str | None
) -> None:
    """Make smaller models of MODEL, measure them on the eval split, and choose one by the rule of the settings.

    MODEL is a served version, a model's number as `bike-pipeline models` lists it, or a pushed folder; without it, the
    model that serves now. Candidates and the table are kept in <workspace>/compression. Nothing that serves is changed.
    Ends with exit code 18 if no candidate is within the limits of exporting.compression.
    """
    from bike_pipeline.use_cases.compression import compress

    with captured(log_file(settings, "compress")) as screen:
        found = compress(settings, model, methods=methods, formats=formats)
        document = {"model_id": found.model_id, "folder": found.folder, **found.table}
        answer(document, lambda _: _compress_view(found), as_json, screen)
    found.require()


def _compress_view(found: Compression) -> list[RenderableType]:
    choice = found.choice
    rows = [
        ("✔" if c is choice.winner else "·", c.method, c.format, *_cells(c), choice.reasons[c.name])
        for c in choice.candidates
    ]
    numbers = ("size", "gzip", "one row", "MAE", "overall", "worst slice")
    return [
        f"model {found.model_id}, on {found.eval_rows:,} rows of its eval split",
        table(("", "method", "format", *numbers, "why"), rows, right=numbers),
        f"candidates and table: {found.folder}",
    ]


def _cells(candidate: Candidate) -> list[str]:
    def number(value: float | None, form: str, unit: float = 1) -> str:
        return "-" if value is None else form.format(value / unit)

    worst = number(candidate.worst_slice_mae_increase, "{:+.1%}")
    return [
        number(candidate.size_bytes, "{:.1f} kB", 1024),
        number(candidate.compressed_bytes, "{:.1f} kB", 1024),
        number(candidate.latency_us, "{:.1f} µs"),
        number(candidate.mae, "{:.2f}"),
        number(candidate.mae_increase, "{:+.1%}"),
        f"{worst} {candidate.worst_slice}" if candidate.worst_slice else worst,
    ]
