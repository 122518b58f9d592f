"""`bike-pipeline schedule`: recurring runs on Kubeflow Pipelines."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bike_pipeline.commands.options import settings_options
from bike_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# robfig/cron as KFP's controller reads it: seconds, minute, hour, day of month, month, day of week.
_CRON_FIELDS = 6


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
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON and nothing else.")
def create(
    settings: Settings,
    cron: str,
    every: str,
    name: str,
    spec: Path | None,
    replace: bool,
    catch_up: bool,
    as_json: bool,
) -> None:
    """Upload the compiled pipeline and run it again and again, one run at a time."""
    if bool(cron) == bool(every):
        raise click.UsageError("Give either --cron or --every.")
    if cron:
        _check_cron(cron)
    seconds = _seconds(every) if every else 0
    from bike_pipeline.commands.cluster_source import client_module, compiled

    text = compiled(settings, spec)
    module = client_module()
    module.check_spec(text)
    client = module.KubeflowClient(settings)
    version = client.upload(text)
    made = client.schedule(
        version,
        name or settings.pipeline_name,
        cron=cron,
        every_seconds=seconds,
        replace=replace,
        catch_up=catch_up,
    )
    if as_json:
        click.echo(json.dumps({"version": asdict(version), "schedule": asdict(made)}, indent=2))
    else:
        click.echo(f"schedule {made.name} ({made.trigger}) runs version {version.name}")


@command.command("list")
@settings_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(settings: Settings, as_json: bool) -> None:
    """List the recurring runs of the pipeline's experiment."""
    found = _client(settings).schedules()
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found], indent=2))
        return
    from rich.table import Table

    from bike_pipeline.commands.output import console_on

    table = Table(box=None, pad_edge=False)
    for heading in ("schedule", "trigger", "state", "pipeline version", "id"):
        table.add_column(heading, overflow="fold")
    for one in found:
        state = "enabled" if one.enabled else "disabled"
        table.add_row(one.name, one.trigger, state, one.version_id or "-", one.schedule_id)
    console_on(sys.stdout).print(table if found else "no schedules")


def _switch(action: str, sentence: str) -> None:
    @command.command(action, help=sentence)
    @settings_options
    @click.argument("name")
    def switch(settings: Settings, name: str) -> None:
        _tell(_client(settings).switch(name, action), f"{action}d")


_switch("enable", "Let a schedule start runs again.")
_switch("disable", "Let a schedule start no more runs, and keep it.")
_switch("delete", "Delete a schedule; its runs stay.")


def _tell(found: Iterable[Any], verb: str) -> None:
    for one in found:
        click.echo(f"{verb} {one.name} ({one.trigger})")


def _client(settings: Settings) -> Any:
    from bike_pipeline.commands.cluster_source import client_module

    return client_module().KubeflowClient(settings)


def _check_cron(text: str) -> None:
    fields = text.split()
    if len(fields) == _CRON_FIELDS or (len(fields) == 1 and text.startswith("@")):
        return
    fix = f"write '0 {text.strip()}'" if len(fields) == _CRON_FIELDS - 1 else "write such as '0 0 3 * * *'"
    raise ConfigurationError(
        f"'{text}' has {len(fields)} fields, and Kubeflow's cron has six, seconds first", where="--cron", fix=fix
    )


def _seconds(text: str) -> int:
    """Return an interval in seconds.

    Raises:
        ConfigurationError: it is no interval, or shorter than a minute.
    """
    found = re.fullmatch(r"(\d+)\s*([smhd])", text.strip())
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if seconds < 60:  # the controller looks for due runs about once a minute
        raise ConfigurationError(
            f"'{text}' is not an interval of a minute or more", where="--every", fix="write 90m, 6h or 1d"
        )
    return seconds
