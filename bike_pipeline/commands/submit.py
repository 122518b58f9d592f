"""`bike-pipeline submit`: upload the compiled pipeline to Kubeflow Pipelines and run it there."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bike_pipeline.commands.options import FiniteRange, settings_options
from bike_pipeline.errors import BikePipelineError, ConfigurationError

if TYPE_CHECKING:
    from rich.console import Console

    from bike_pipeline.settings import Settings

_STYLES = {"SUCCEEDED": "green", "FAILED": "bold red", "CANCELED": "bold red", "SKIPPED": "dim"}


@click.command()
@settings_options
@click.option("--spec", type=click.Path(path_type=Path), help="A compiled spec; without it, the pipeline is compiled.")
@click.option("--name", default="", help="Name of the run; the pipeline's name and the time by default.")
@click.option("--parameter", "parameters", metavar="KEY=VALUE", multiple=True, help="One of the spec's parameters.")
@click.option("--wait", is_flag=True, help="Show the state of each task until the run ends, and exit by its result.")
@click.option("--timeout", type=FiniteRange(min=0, min_open=True), help="With --wait: give up after SECONDS.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON and nothing else.")
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

    The same spec is uploaded once; what changed becomes a new version of the pipeline. Ends with exit code 15 where the
    cluster cannot be reached or refuses, and with --wait, 10 where a task failed. A run that succeeds need not have
    pushed a model: the gates decide that inside it.
    """
    from datetime import UTC, datetime

    from bike_pipeline.commands.cluster_source import client_module, compiled
    from bike_pipeline.commands.output import console_on

    if timeout is not None and not wait:
        raise click.UsageError("--timeout goes with --wait.")
    values = _parameters(parameters)
    console = None if as_json else console_on(sys.stdout)
    text = compiled(settings, spec)
    module = client_module()
    module.check_spec(text)
    client = module.KubeflowClient(settings)
    version = client.upload(text)
    run = client.start(version, name or f"{settings.pipeline_name} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}", values)
    if console:
        verb = "uploaded" if version.created else "already there:"
        console.print(f"pipeline {settings.pipeline_name}: {verb} version {version.name}", soft_wrap=True)
        console.print(f"run {run.run_id}: {run.address}", soft_wrap=True)
    failure: BikePipelineError | None = None
    if wait:
        try:
            run = client.wait(run.run_id, timeout, _teller(console))
            module.check_outcome(run)
        except BikePipelineError as error:
            failure = error
    if as_json:
        result: dict[str, Any] = {"version": asdict(version), "run": asdict(run)}
        if failure:
            result |= {"error": str(failure), "exit_code": failure.exit_code}
        click.echo(json.dumps(result, indent=2))
    elif wait and not failure and console:
        console.print(f"run {run.state}", style=_STYLES.get(run.state, ""))
    if failure:
        raise failure


def _teller(console: Console | None) -> Any:
    """Return what prints each change of a task's state as one line."""
    before: dict[str, str] = {}

    def told(run: Any) -> None:
        if console is None:
            return
        for task, state in run.tasks.items():
            if before.get(task) != state:
                console.print(f"{task:20s} {state.lower()}", style=_STYLES.get(state, ""), soft_wrap=True)
                before[task] = state

    return told


def _parameters(texts: tuple[str, ...]) -> dict[str, Any]:
    import yaml

    from bike_pipeline.settings.strict_yaml import problem_of, read_yaml, values_of

    values: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigurationError(f"'{text}' is not key=value", where="--parameter", fix="write --parameter span=2")
        try:
            values[key.strip()] = values_of(read_yaml(value))
        except (yaml.YAMLError, ValueError) as error:
            raise ConfigurationError(
                f"the value of {key} is not valid YAML ({problem_of(error)})", where="--parameter", fix="quote it"
            ) from None
    return values
