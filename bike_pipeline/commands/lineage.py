"""`bike-pipeline lineage`: where a model came from, which models saw some rows, what changed between two models."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bike_pipeline.commands.options import settings_options

if TYPE_CHECKING:
    from rich.console import RenderableType

    from bike_pipeline.lineage.queries.impact import Impact
    from bike_pipeline.settings import Settings


class _ShowIsDefault(click.Group):
    """`lineage`, `lineage MODEL` and `lineage --run ID` mean `lineage show …`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["show", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_ShowIsDefault)
def command() -> None:
    """Show where a model came from: `lineage [MODEL]` is short for `lineage show [MODEL]`."""


@command.command()
@settings_options
@click.argument("model", required=False)
@click.option("--serving", is_flag=True, help="The model that serves now; so without any argument.")
@click.option("--run", "run_id", default=None, help="A run, as `bike-pipeline runs` lists it.")
@click.option(
    "--impact", default=None, metavar="SPAN/VERSION", help="List every model that saw these rows, as history too."
)
@click.option("--cluster", is_flag=True, help="Read the cluster's store (kubeflow.metadata).")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "dot", "html"]),
    default="text",
    show_default=True,
    help="dot is for Graphviz; html is one page that needs no network.",
)
@click.option("--output", type=click.Path(path_type=Path), default=None, help="Write to this file.")
def show(
    settings: Settings,
    model: str | None,
    serving: bool,
    run_id: str | None,
    impact: str | None,
    cluster: bool,
    form: str,
    output: Path | None,
) -> None:
    """Show the way from a MODEL back to the rows and the code, with its gates and metrics.

    MODEL is a served version, a model's number as `bike-pipeline models` lists it, or a pushed folder.
    """
    if sum((model is not None, serving, run_id is not None, impact is not None)) > 1:
        raise click.UsageError("MODEL, --serving, --run and --impact exclude each other")
    if impact is not None and form not in ("text", "json"):
        raise click.UsageError("--impact knows the formats text and json")
    from bike_pipeline.lineage.queries.history import History
    from bike_pipeline.lineage.queries.impact import impact_of, parse_span
    from bike_pipeline.use_cases.metadata import lineage_of

    span = parse_span(impact) if impact is not None else None
    lineage = lineage_of(settings, cluster)
    history = History(lineage)
    if span is not None:
        serving_path = "" if cluster else settings.serving_path
        found = impact_of(lineage, history, *span, settings.store_uri, serving_path)
        _write(json.dumps(asdict(found), indent=2) if form == "json" else _impact(found), output)
        return
    from bike_pipeline.lineage.queries.graph import as_dot
    from bike_pipeline.lineage.queries.model_lookup import chosen_model
    from bike_pipeline.lineage.reports.lineage_report import report_as_json, report_of_model, report_of_run

    if run_id is not None:
        report = report_of_run(lineage, history, run_id, settings.store_uri)
    else:
        chosen = chosen_model(lineage, "" if cluster else settings.serving_path, model)
        report = report_of_model(lineage, history, chosen, settings.store_uri)
    if form == "json":
        _write(json.dumps(report_as_json(report), indent=2), output)
    elif form == "dot":
        _write(as_dot(report.graph, report.title), output)
    elif form == "html":
        from bike_pipeline.lineage.reports.page import as_html

        _write(as_html(report), output)
    else:
        from bike_pipeline.commands.lineage_text import report_text

        _write(report_text(report), output)


@command.command()
@settings_options
@click.argument("first")
@click.argument("second")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def diff(settings: Settings, first: str, second: str, as_json: bool) -> None:
    """Show what changed from the model FIRST to the model SECOND: data, schema, features, code, settings, metrics."""
    from bike_pipeline.lineage.queries.comparison import compare
    from bike_pipeline.lineage.queries.history import History
    from bike_pipeline.lineage.queries.model_lookup import chosen_model
    from bike_pipeline.use_cases.metadata import lineage_of

    lineage = lineage_of(settings)
    models = [chosen_model(lineage, settings.serving_path, name).model_id for name in (first, second)]
    found = compare(lineage, History(lineage), models[0], models[1])
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2))
        return
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in ("what", "name", f"model {found.first}", f"model {found.second}"):
        table.add_column(name, overflow="fold")
    part = ""
    for entry in found.differences:
        table.add_row(
            entry.part if entry.part != part else "", entry.name, entry.before or "(none)", entry.after or "(none)"
        )
        part = entry.part
    notes = [Text(f"not known: {text}", style="yellow") for text in found.unknown]
    same = [Text(f"the same: {', '.join(found.same)}")] if found.same else []
    _write(Group(*([table] if found.differences else []), *same, *notes), None)


def _impact(impact: Impact) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    name = f"span {impact.span}" + (f" version {impact.version}" if impact.version is not None else "")
    notes = [Text(f"note: {note}", style="yellow") for note in impact.notes]
    if not impact.sightings:
        return Group(Text(f"no model saw {name}"), *notes)
    table = Table(box=None, pad_edge=False)
    for column in ("model", "trained (UTC)", "version", "how", "blessed", "served as"):
        table.add_column(column, overflow="fold")
    blessed = {True: "yes", False: "no", None: "not evaluated"}
    for seen in impact.sightings:
        how = seen.role
        if seen.carried_over:
            how += f" (a later version, with {seen.carried_over:,} rows carried over)"
        served = ", ".join(map(str, seen.served_versions)) or "-"
        table.add_row(
            str(seen.model_id),
            seen.trained_at[:19].replace("T", " "),
            str(seen.version),
            how,
            blessed[seen.blessed],
            f"{served} (serving)" if seen.serving else served,
        )
    return Group(Text(f"models that saw {name}", style="bold"), table, *notes)


def _write(content: str | Any, output: Path | None) -> None:
    """Print, or write to a file: text as it is, anything else as rich renders it."""
    from bike_pipeline.commands.output import console_on

    if output is None:
        if isinstance(content, str):
            click.echo(content.rstrip("\n"))
        else:
            console_on(sys.stdout).print(content)
        return
    with output.open("w", encoding="utf-8") as file:
        if isinstance(content, str):
            file.write(content.rstrip("\n") + "\n")
        else:
            console_on(file).print(content)
    click.echo(f"wrote {output}")
