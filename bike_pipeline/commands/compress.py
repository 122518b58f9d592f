"""`bike-pipeline compress`: smaller models of a blessed one, measured, and the one that the rule chooses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bike_pipeline.commands.options import json_option, settings_options
from bike_pipeline.commands.output import answer, captured, log_file, table
from bike_pipeline.use_cases.compression import METHODS

if TYPE_CHECKING:
    from rich.console import RenderableType

    from bike_pipeline.exporting.compression.rule import Candidate
    from bike_pipeline.settings import Settings
    from bike_pipeline.settings.compression import Method
    from bike_pipeline.use_cases.compression import Compression


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
def command(
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
        answer(document, lambda _: _view(found), as_json, screen)
    found.require()


def _view(found: Compression) -> list[RenderableType]:
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
