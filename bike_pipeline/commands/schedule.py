"""`bike-pipeline schedule`: recurring runs on Kubeflow Pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from bike_pipeline.commands.compile import compiled
from bike_pipeline.commands.options import json_option, settings_options
from bike_pipeline.commands.output import answer, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from bike_pipeline.runners.kubeflow.cluster_records import Schedule
    from bike_pipeline.settings import Settings


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Make, list, switch and delete recurring runs on Kubeflow Pipelines."""


@command.command()
@settings_options
@click.option("--cron", default="", help="Six fields, seconds first: '0 0 3 * * *' is every night at three (UTC).")
@click.option("--every", default="", help="An interval: 90m, 6h, 1d.")
@click.option("--name", default="", help="Name of the schedule; the pipeline's name by default.")
@click.option("--spec", type=click.Path(path_type=Path), help="A compiled spec; without it, the pipeline is compiled.")
@click.option("--replace", is_flag=True, help="Put it in the place of the one with this name.")
@click.option("--catch-up", is_flag=True, help="Start one run for each missed time, too.")
@json_option
def create(settings: Settings, cron: str, every: str, spec: Path | None, as_json: bool, **options: Any) -> None:
    """Upload the compiled pipeline and run it again and again, one run at a time."""
    from bike_pipeline.use_cases import cluster

    if bool(cron) == bool(every):
        raise click.UsageError("Give either --cron or --every.")
    cluster.check_times(cron, every)
    made = cluster.schedule(settings, spec or compiled(settings), cron=cron, every=every, **options)
    line = f"schedule {made.schedule.name} ({made.schedule.trigger}) runs version {made.version.name}"
    answer(made, lambda _: line, as_json)


@command.command("list")
@settings_options
@json_option
def list_(settings: Settings, as_json: bool) -> None:
    """List the recurring runs of the pipeline's experiment."""
    from bike_pipeline.use_cases.cluster import schedules

    answer(schedules(settings), _view, as_json)


def _view(found: list[Schedule]) -> RenderableType:
    if not found:
        return "no schedules"
    rows = [
        (one.name, one.trigger, "enabled" if one.enabled else "disabled", one.version_id or "-", one.schedule_id)
        for one in found
    ]
    return table(("schedule", "trigger", "state", "pipeline version", "id"), rows)


def _add(action: Literal["enable", "disable", "delete"], sentence: str) -> None:
    @command.command(action, help=sentence)
    @settings_options
    @click.argument("name")
    def switch(settings: Settings, name: str) -> None:
        from bike_pipeline.use_cases.cluster import switch_schedule

        for one in switch_schedule(settings, name, action):
            click.echo(f"{action}d {one.name} ({one.trigger})")


_add("enable", "Let a schedule start runs again.")
_add("disable", "Let a schedule start no more runs, and keep it.")
_add("delete", "Delete a schedule; its runs stay.")
