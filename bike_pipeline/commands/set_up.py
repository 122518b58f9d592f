"""Commands about the installation: `config`, `doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bike_pipeline import extras
from bike_pipeline.commands.shared import PATH, answer, as_document, command, json_option, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from bike_pipeline.settings import Settings
    from bike_pipeline.use_cases.doctor import Check


@click.group()
def config_command() -> None:
    """Show the settings, or their schema."""


@command(config_command)
def show(settings: Settings) -> None:
    """Print the settings in force, as YAML that `--config` takes."""
    import yaml

    click.echo(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True), nl=False)


@config_command.command()
def schema() -> None:
    """Print the JSON schema of the settings: every name, type, range and meaning."""
    from bike_pipeline.settings import Settings

    click.echo(as_document(Settings.model_json_schema()))


_STYLES = {"ok": "green", "absent": "yellow", "PROBLEM": "bold red"}


@click.command("doctor", short_help="What is there, which versions, what is missing and how to get it.")
@click.option("--config", type=PATH, help="An overlay file to check in place of the defaults.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="A single setting to check; repeatable.")
@click.option(
    "--require",
    "required",
    multiple=True,
    type=click.Choice(list(extras.EXTRAS)),
    help="An extra that must be there; repeatable.",
)
@json_option
def doctor_command(config: Path | None, assignments: tuple[str, ...], required: tuple[str, ...], as_json: bool) -> None:
    """Print what is there, which versions, what is missing and how to get it.

    The exit code is 0 if all that is needed is there. Optional parts may be absent, unless named with --require.
    """
    from bike_pipeline.use_cases.doctor import examine

    checks = examine(config=config, assignments=assignments, required=required)
    errors = [check.error for check in checks if check.error is not None]
    fields = ("group", "name", "state", "found", "fix")
    report = {"ok": not errors, "checks": [{field: getattr(check, field) for field in fields} for check in checks]}
    answer(report, lambda _: _view(checks), as_json)
    if errors:
        raise errors[0]


def _view(checks: list[Check]) -> RenderableType:
    from rich.text import Text

    rows: list[tuple[RenderableType, ...]] = []
    group = ""
    for check in checks:
        if check.group != group:
            group = check.group
            rows.append(("", Text(f"\n{group}", style="bold"), "", ""))
        state = "PROBLEM" if check.state == "problem" else check.state
        rows.append((Text(state, style=_STYLES[state]), check.name, check.found, check.fix))
    return table(("", "what", "found", "what to do, or what it is for"), rows)
