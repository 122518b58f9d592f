"""`bike-pipeline run`: run the pipeline and show how it goes."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from bike_pipeline.commands.options import settings_options
from bike_pipeline.errors import BikePipelineError, ConfigurationError, NotPushedError

if TYPE_CHECKING:
    from rich.console import Console

    from bike_pipeline.run_events import RunResult
    from bike_pipeline.settings import Settings

RUNNERS_GROUP = "bike_pipeline.runners"
# Those whose records are in the workspace's own metadata store.
_TRACKED_RUNNERS = ("local", "beam")
_NEXT_STEPS = (
    ("make retrain", "the second half arrives: train again, against this model"),
    ("bike-pipeline models", "what was trained, blessed and served"),
    ("bike-pipeline runs", "what ran, and how it ended"),
    ("bike-pipeline data ingest YOUR.csv", "the next span, from your own rows"),
)
_EXAMPLE = (
    '{"dteday": "2012-06-01", "hr": 8, "holiday": 0, "weathersit": 1, '
    '"temp": 0.6, "atemp": 0.58, "hum": 0.5, "windspeed": 0.2}'
)


@click.command()
@settings_options
@click.option("--runner", default="local", show_default=True, help="Where to run.")
@click.option("--local", is_flag=True, help="With --runner kubeflow: run the compiled spec on this machine.")
@click.option("--no-cache", is_flag=True, help="Run every stage, even where nothing changed.")
@click.option(
    "--accept-baseline-reset",
    is_flag=True,
    help="Let a changed signature or metric set go uncompared, or a lost metadata store be begun anew, once.",
)
@click.option("--wait", is_flag=True, help="Wait for another run in this workspace instead of refusing.")
@click.option(
    "--demo", type=click.Choice(["first", "second"]), help="Ingest that half of the embedded data (2011, 2012) first."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON and nothing else.")
def command(
    settings: Settings,
    runner: str,
    local: bool,
    no_cache: bool,
    accept_baseline_reset: bool,
    wait: bool,
    demo: str | None,
    as_json: bool,
) -> None:
    """Run the pipeline on the newest span.

    Ends with exit code 0 where a model serves the newest data, 5 where the data gate refused the data, 6 where the
    candidate was not blessed (the serving model stays).
    """
    from datetime import UTC, datetime

    from bike_pipeline.commands import run_view
    from bike_pipeline.commands.output import console_on
    from bike_pipeline.log_capture import captured
    from bike_pipeline.tracking.beside import after_run

    if local and runner != "kubeflow":
        raise ConfigurationError("--local belongs to --runner kubeflow", where="--local", fix="leave one of them out")
    kind = runner_named(runner)
    options = {"local": True} if local else {}
    # Read by TensorFlow's C++ code when it is loaded: the log file gets everything from information upwards.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "0")
    log_file = settings.logs_path / f"run-{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}.log"
    with captured(log_file) as screen:
        console = console_on(screen)
        if demo:
            _ingest_demo(settings, demo, None if as_json else console)
        view: Any = (
            run_view.SilentView(console)
            if as_json
            else (run_view.TableView(console) if console.is_terminal else run_view.LinesView(console))
        )
        try:
            with view:
                result: RunResult = kind(settings, view, wait, **options).run(not no_cache, accept_baseline_reset)
        except BaseException as error:
            if not isinstance(error, BikePipelineError):
                raise
            if as_json:
                screen.write(
                    json.dumps({"error": str(error), "exit_code": error.exit_code, "log": str(log_file)}) + "\n"
                )
            else:
                console.print(f"log: {log_file}", soft_wrap=True)
            import traceback

            traceback.print_exc()
            raise
        if not as_json:
            console.print(run_view.result_tables(result))
            _say_outcome(console, result, _serving(settings))
        tracked = after_run(settings, result.run_id) if runner in _TRACKED_RUNNERS else ""
        if as_json:
            told = {**asdict(result), "tracking": tracked, "log": str(log_file), "promoted_version": _serving(settings)}
            screen.write(json.dumps(told, indent=2) + "\n")
        else:
            if tracked:
                console.print(tracked, soft_wrap=True)
            console.print(f"log: {log_file}", soft_wrap=True)
    if result.pushed_version is None:
        raise NotPushedError(
            "the candidate was not blessed, so the serving model stays",
            fix="see the failed gates above; `bike-pipeline models` compares what was trained",
        )


def runner_named(name: str) -> Any:
    """Return the runner class that is registered under a name.

    Raises:
        ConfigurationError: there is none.
    """
    from importlib.metadata import entry_points

    found = {point.name: point for point in entry_points(group=RUNNERS_GROUP)}
    if name not in found:
        raise ConfigurationError(
            f"there is no runner '{name}'", where="--runner", fix=f"choose one of: {', '.join(sorted(found))}"
        )
    return found[name].load()


def _ingest_demo(settings: Settings, half: str, console: Console | None) -> None:
    """Ingest the first half, or both in their order; a half that is there already is found and kept."""
    from bike_pipeline.data.embedded_dataset import split_demo
    from bike_pipeline.data.ingest import ingest
    from bike_pipeline.data.spans import SpanStore
    from bike_pipeline.tracking.beside import after_ingest

    halves = split_demo(settings.workspace_path / "uploads")
    for number, source in enumerate(halves[: 1 if half == "first" else 2], 1):
        result = ingest(settings, str(source))
        note = after_ingest(settings, SpanStore(settings.store_uri), result.version.span, result.version.version)
        if console:
            verb = "ingested" if result.created else "already there:"
            name = f"half {number} of the embedded data"
            stored, rows = result.version, result.version.manifest.rows.total
            console.print(f"{name} {verb} as span {stored.span} version {stored.version}, {rows:,} rows")
            if note:
                console.print(note, soft_wrap=True)


def _serving(settings: Settings) -> int | None:
    from bike_pipeline.model_registry.promotion_log import promoted_version

    return promoted_version(settings.serving_path)


def _say_outcome(console: Console, result: RunResult, serving: int | None) -> None:
    console.print()
    if result.pushed_version is None:
        console.print("not pushed: the candidate is not blessed; the serving model stays", style="bold red")
        return
    serves = serving == result.pushed_version
    verb = "pushed" if result.newly_pushed else f"nothing new: {'serving' if serves else 'pushed'} already"
    where = f"version {result.pushed_version} in {result.destination}"
    console.print(f"{verb}: {where}", style="bold green", soft_wrap=True)
    if not serves:
        still = f"version {serving} serves" if serving is not None else "no version serves"
        console.print(
            f"not promoted: {still}; `bike-pipeline promote {result.pushed_version}` promotes this one",
            style="bold yellow",
            soft_wrap=True,
        )
    console.print("next:")
    first_span = any(stage.outcome.startswith("span 1 ") for stage in result.stages)
    for step, meaning in _NEXT_STEPS if first_span else _NEXT_STEPS[1:]:
        console.print(f"  {step:42s} {meaning}", soft_wrap=True)
    console.print(f"  bike-pipeline predict '{_EXAMPLE}'", soft_wrap=True)
