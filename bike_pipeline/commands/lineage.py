"""`bike-pipeline lineage`: where a model came from, which models saw some rows, what changed between two models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from bike_pipeline.commands.options import cluster_option, json_option, settings_options
from bike_pipeline.commands.output import Parts, answer, as_document
from bike_pipeline.commands.output import show as print_parts

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings
    from bike_pipeline.use_cases.lineage import Form


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
@cluster_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "dot", "html", "card"]),
    default="text",
    show_default=True,
    help="dot is for Graphviz; html and card (the model card) are one page that needs no network.",
)
@click.option("--output", type=click.Path(path_type=Path), default=None, help="Write to this file.")
def show(
    settings: Settings,
    model: str | None,
    serving: bool,
    run_id: str | None,
    impact: str | None,
    cluster: bool,
    form: Literal["text"] | Form,
    output: Path | None,
) -> None:
    """Show the way from a MODEL back to the rows and the code, with its gates and metrics.

    MODEL is a served version, a model's number as `bike-pipeline models` lists it, or a pushed folder.
    """
    if sum((model is not None, serving, run_id is not None, impact is not None)) > 1:
        raise click.UsageError("MODEL, --serving, --run and --impact exclude each other")
    if impact is not None and form not in ("text", "json"):
        raise click.UsageError("--impact knows the formats text and json")
    if run_id is not None and form == "card":
        raise click.UsageError("a card is a model's, not a run's")
    from bike_pipeline.commands import lineage_text
    from bike_pipeline.use_cases import lineage

    if impact is not None:
        seen = lineage.impact(settings, impact, cluster=cluster)
        _write(as_document(seen) if form == "json" else lineage_text.impact_text(seen), output)
        return
    report = lineage.lineage_report(settings, model, run_id=run_id, cluster=cluster)
    _write(lineage_text.report_text(report) if form == "text" else lineage.rendered(report, form), output)


@command.command()
@settings_options
@click.argument("first")
@click.argument("second")
@json_option
def diff(settings: Settings, first: str, second: str, as_json: bool) -> None:
    """Show what changed from the model FIRST to the model SECOND: data, schema, features, code, settings, metrics."""
    from bike_pipeline.commands import lineage_text
    from bike_pipeline.use_cases.lineage import compare

    answer(compare(settings, first, second), lineage_text.comparison_text, as_json)


def _write(parts: Parts, output: Path | None) -> None:
    """Print, or write to a file."""
    if output is None:
        print_parts(parts)
        return
    with output.open("w", encoding="utf-8") as file:
        print_parts(parts, file)
    click.echo(f"wrote {output}")
