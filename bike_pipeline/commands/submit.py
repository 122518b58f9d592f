"""`bike-pipeline submit`: upload the compiled pipeline to Kubeflow Pipelines and run it there."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bike_pipeline.commands.compile import compiled
from bike_pipeline.commands.options import FiniteRange, json_option, settings_options
from bike_pipeline.commands.output import answer, as_document, show
from bike_pipeline.errors import BikePipelineError, ConfigurationError

if TYPE_CHECKING:
    from rich.console import RenderableType

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
    settings: Settings, spec: Path | None, parameters: tuple[str, ...], wait: bool, as_json: bool, **options: Any
) -> None:
    """Upload the compiled pipeline to Kubeflow Pipelines and run it there.

    The same spec is uploaded once; what changed becomes a new version of the pipeline. Ends with exit code 15 if the
    cluster cannot be reached or refuses, and with --wait, 10 if a task failed. A run that succeeds need not have
    pushed a model: the gates decide that inside it.
    """
    from bike_pipeline.use_cases.cluster import submit

    if options["timeout"] is not None and not wait:
        raise click.UsageError("--timeout goes with --wait.")
    values, spec = _parameters(parameters), spec or compiled(settings)
    seen: list[Submission] = []

    def observe(now: Submission) -> None:
        if not as_json:
            show(_changes(seen[-1] if seen else None, now, settings.pipeline_name))
        seen.append(now)

    try:
        submit(settings, spec, parameters=values, wait=wait, observe=observe, **options)
    except BikePipelineError as error:
        if as_json and seen:
            click.echo(as_document({**asdict(seen[-1]), "error": str(error), "exit_code": error.exit_code}))
        raise
    if as_json or wait:
        answer(seen[-1], lambda now: _line(f"run {now.run.state}", now.run.state), as_json)


def _changes(before: Submission | None, now: Submission, pipeline: str) -> list[RenderableType]:
    """Return the run as it begins, or each task whose state is another one, a line each."""
    if before is None:
        verb = "uploaded" if now.version.created else "already there:"
        return [f"pipeline {pipeline}: {verb} version {now.version.name}", f"run {now.run.run_id}: {now.run.address}"]
    changed = now.run.tasks.items() - before.run.tasks.items()
    return [
        _line(f"{task:20s} {state.lower()}", state) for task, state in now.run.tasks.items() if (task, state) in changed
    ]


def _line(text: str, state: str) -> RenderableType:
    from rich.text import Text

    return Text(text, style=_STYLES.get(state, ""))


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
