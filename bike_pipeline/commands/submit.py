"""`bike-pipeline submit`: upload the compiled pipeline to Kubeflow Pipelines and run it there."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bike_pipeline.commands.compile import compiled
from bike_pipeline.commands.options import FiniteRange, json_option, settings_options
from bike_pipeline.commands.output import as_document, console_on
from bike_pipeline.errors import BikePipelineError, ConfigurationError

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings
    from bike_pipeline.use_cases.cluster import Submission

_STYLES = {"SUCCEEDED": "green", "FAILED": "bold red", "CANCELED": "bold red", "SKIPPED": "dim"}


@click.command()
@settings_options
@click.option("--spec", type=click.Path(path_type=Path), help="A compiled spec; without it, the pipeline is compiled.")
@click.option("--name", default="", help="Name of the run; the pipeline's name and the time by default.")
@click.option("--parameter", "parameters", metavar="KEY=VALUE", multiple=True, help="One of the spec's parameters.")
@click.option("--wait", is_flag=True, help="Show the state of each task until the run ends, and exit by its result.")
@click.option("--timeout", type=FiniteRange(min=0, min_open=True), help="With --wait: give up after SECONDS.")
@json_option
def command(
    settings: Settings,
    spec: Path | None,
    name: str,
    parameters: tuple[str, ...],
    wait: bool,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Upload the compiled pipeline to Kubeflow Pipelines and run it there.

    The same spec is uploaded once; what changed becomes a new version of the pipeline. Ends with exit code 15 if the
    cluster cannot be reached or refuses, and with --wait, 10 if a task failed. A run that succeeds need not have
    pushed a model: the gates decide that inside it.
    """
    from bike_pipeline.use_cases.cluster import submit

    if timeout is not None and not wait:
        raise click.UsageError("--timeout goes with --wait.")
    seen: list[Submission] = []
    show = _observer(settings)

    def observe(now: Submission) -> None:
        seen.append(now)
        if not as_json:
            show(now)

    values = _parameters(parameters)
    try:
        submit(
            settings,
            spec or compiled(settings),
            name=name,
            parameters=values,
            wait=wait,
            timeout=timeout,
            observe=observe,
        )
    except BikePipelineError as error:
        if as_json and seen:
            click.echo(as_document({**asdict(seen[-1]), "error": str(error), "exit_code": error.exit_code}))
        raise
    if as_json:
        click.echo(as_document(seen[-1]))
    elif wait:
        state = seen[-1].run.state
        console_on(sys.stdout).print(f"run {state}", style=_STYLES.get(state, ""))


def _observer(settings: Settings) -> Callable[[Submission], None]:
    """Return what prints the run as it begins, and each change of a task's state as one line."""
    console = console_on(sys.stdout)
    before: dict[str, str] | None = None

    def show(now: Submission) -> None:
        nonlocal before
        if before is None:
            before = {}
            verb = "uploaded" if now.version.created else "already there:"
            console.print(f"pipeline {settings.pipeline_name}: {verb} version {now.version.name}", soft_wrap=True)
            console.print(f"run {now.run.run_id}: {now.run.address}", soft_wrap=True)
            return
        for task, state in now.run.tasks.items():
            if before.get(task) != state:
                console.print(f"{task:20s} {state.lower()}", style=_STYLES.get(state, ""), soft_wrap=True)
        before = now.run.tasks

    return show


def _parameters(texts: tuple[str, ...]) -> dict[str, Any]:
    import yaml

    from bike_pipeline.settings.strict_yaml import problem_of, read_yaml, resolved_all

    values: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigurationError(f"'{text}' is not key=value", where="--parameter", fix="write --parameter span=2")
        try:
            values[key.strip()] = resolved_all(read_yaml(value))
        except (yaml.YAMLError, ValueError) as error:
            raise ConfigurationError(
                f"the value of {key} is not valid YAML ({problem_of(error)})", where="--parameter", fix="quote it"
            ) from None
    return values
