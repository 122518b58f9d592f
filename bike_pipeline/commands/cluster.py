"""Commands for a cluster: `compile`, `submit`, `schedule`, `trainjob`, `manifests`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from bike_pipeline.commands import shared
from bike_pipeline.errors import BikePipelineError, StorageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from bike_pipeline.runners.kubeflow.cluster_records import Schedule
    from bike_pipeline.runners.kubeflow.definition import Target
    from bike_pipeline.settings import Settings
    from bike_pipeline.use_cases.cluster import Submission


@shared.command()
@click.option(
    "--target",
    type=click.Choice(["kubeflow", "vertex"]),
    default="kubeflow",
    show_default=True,
    help="Kubeflow Pipelines (YAML) or Vertex AI (a job in JSON).",
)
@click.option("--output", type=shared.FILE, help="The file; by default in <workspace>/kubeflow.")
def compile_command(settings: Settings, target: Target, output: Path | None) -> None:
    """Compile the pipeline into a spec that a cluster runs.

    The section `kubeflow` of the settings says what the cluster looks like. The same settings and code give the same
    file.
    """
    click.echo(compiled(settings, target, output))


def compiled(settings: Settings, target: Target = "kubeflow", output: Path | None = None) -> Path:
    """Compile the pipeline; what the libraries write goes to a log."""
    from bike_pipeline.use_cases.cluster import compile_pipeline

    with shared.captured(shared.log_file(settings, "compile")):
        return compile_pipeline(settings, target, output)


_STYLES = {"SUCCEEDED": "green", "FAILED": "bold red", "CANCELED": "bold red", "SKIPPED": "dim"}


@shared.command()
@click.option("--spec", type=shared.PATH, help="A compiled spec; without it, the pipeline is compiled.")
@click.option("--name", default="", help="Name of the run; the pipeline's name and the time by default.")
@click.option("--once", is_flag=True, help="Start none where one of that --name was started and has not failed.")
@click.option("--parameter", "parameters", metavar="KEY=VALUE", multiple=True, help="One of the spec's parameters.")
@click.option("--wait", is_flag=True, help="Show the state of each task until the run ends, and exit by its result.")
@click.option("--timeout", type=shared.FiniteRange(min=0, min_open=True), help="With --wait: give up after SECONDS.")
@shared.json_option
def submit_command(
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
            shared.show(_changes(seen[-1] if seen else None, now, settings.pipeline_name))
        seen.append(now)

    try:
        submit(settings, spec, parameters=values, wait=wait, observe=observe, **options)
    except BikePipelineError as error:
        if as_json and seen:
            click.echo(shared.as_document({**asdict(seen[-1]), "error": str(error), "exit_code": error.exit_code}))
        raise
    if as_json or wait:
        shared.answer(seen[-1], lambda now: _line(f"run {now.run.state}", now.run.state), as_json)


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
    from bike_pipeline.settings.section import read_yaml, resolved_all
    from bike_pipeline.settings.tree import assignment

    example = "--parameter span=2"
    return dict(assignment(text, example, lambda value: resolved_all(read_yaml(value))) for text in texts)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def schedule_command() -> None:
    """Make, list, switch and delete recurring runs on Kubeflow Pipelines."""


@shared.command(schedule_command)
@click.option("--cron", default="", help="Six fields, seconds first: '0 0 3 * * *' is every night at three (UTC).")
@click.option("--every", default="", help="An interval: 90m, 6h, 1d.")
@click.option("--name", default="", help="Name of the schedule; the pipeline's name by default.")
@click.option("--spec", type=shared.PATH, help="A compiled spec; without it, the pipeline is compiled.")
@click.option("--replace", is_flag=True, help="Put it in the place of the one with this name.")
@click.option("--catch-up", is_flag=True, help="Start one run for each missed time, too.")
@shared.json_option
def create(settings: Settings, cron: str, every: str, spec: Path | None, as_json: bool, **options: Any) -> None:
    """Upload the compiled pipeline and run it again and again, one run at a time."""
    from bike_pipeline.use_cases import cluster

    if bool(cron) == bool(every):
        raise click.UsageError("Give either --cron or --every.")
    cluster.check_times(cron, every)
    made = cluster.schedule(settings, spec or compiled(settings), cron=cron, every=every, **options)
    line = f"schedule {made.schedule.name} ({made.schedule.trigger}) runs version {made.version.name}"
    shared.answer(made, lambda _: line, as_json)


@shared.command(schedule_command, "list")
@shared.json_option
def list_(settings: Settings, as_json: bool) -> None:
    """List the recurring runs of the pipeline's experiment."""
    from bike_pipeline.use_cases.cluster import schedules

    shared.answer(schedules(settings), _view, as_json)


def _view(found: list[Schedule]) -> RenderableType:
    if not found:
        return "no schedules"
    rows = [
        (one.name, one.trigger, "enabled" if one.enabled else "disabled", one.version_id or "-", one.schedule_id)
        for one in found
    ]
    return shared.table(("schedule", "trigger", "state", "pipeline version", "id"), rows)


def _add(action: Literal["enable", "disable", "delete"], sentence: str) -> None:
    @schedule_command.command(action, help=sentence)
    @shared.with_settings
    @click.argument("name")
    def switch(settings: Settings, name: str) -> None:
        from bike_pipeline.use_cases.cluster import switch_schedule

        for one in switch_schedule(settings, name, action):
            click.echo(f"{action}d {one.name} ({one.trigger})")


_add("enable", "Let a schedule start runs again.")
_add("disable", "Let a schedule start no more runs, and keep it.")
_add("delete", "Delete a schedule; its runs stay.")


@shared.command()
@click.argument("name")
@click.option(
    "--examples", multiple=True, required=True, help="File pattern of tf.Examples; may be given several times."
)
@click.option("--evaluated", multiple=True, help="The same, of those whose labels feedback and intervals begin with.")
@click.option("--transform-graph", required=True, help="Folder of the transform graph.")
@click.option("--model", required=True, help="Folder for the model; must not exist.")
@click.option("--base-model", default="", help="Folder of the SavedModel to start from.")
@click.option("--output", type=shared.FILE, help="The file; else standard output.")
def trainjob_command(settings: Settings, name: str, output: Path | None, **places: Any) -> None:
    """Write the TrainJob NAME for Kubeflow Trainer, with its runtime.

    Places are as the pods see them, on a volume of kubeflow.volumes. training.workers says how many pods there are.
    """
    from bike_pipeline.use_cases.cluster import train_job

    text = train_job(settings, name, **places)
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"cannot write the manifest ({error.strerror or error})", where=str(output), fix="name another file"
        ) from None
    click.echo(output)


@shared.command()
@click.option(
    "--output",
    type=shared.FOLDER,
    default=Path("configs/kubernetes/settings"),
    show_default=True,
    help="Folder to write to.",
)
@click.option("--check", is_flag=True, help="Write nothing; fail where a file is not what would be written.")
def manifests_command(settings: Settings, output: Path, check: bool) -> None:
    """Write the folder for kustomize that serves the model on Kubernetes: a Deployment for each label with a share.

    It follows from the settings (images, serving.configuration) and from what is promoted; overlays in
    configs/kubernetes/overlays build on it. See docs/kubernetes.md.
    """
    from bike_pipeline.use_cases.cluster import kubernetes_manifests

    files = kubernetes_manifests(settings, output, check=check)
    click.echo(f"{output}: {len(files)} files as the settings give them" if check else "\n".join(map(str, files)))
