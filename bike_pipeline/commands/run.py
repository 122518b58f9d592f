"""`bike-pipeline run`: run the pipeline and show how it goes."""

from __future__ import annotations

import traceback
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import click

from bike_pipeline.commands.options import json_option, settings_options
from bike_pipeline.commands.output import answer, captured, console_on, log_file, show
from bike_pipeline.errors import BikePipelineError, NotPushedError

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings


@click.command()
@settings_options
@click.option("--runner", default="local", show_default=True, help="Where to run.")
@click.option("--local", is_flag=True, help="With --runner kubeflow: run the compiled spec on this machine.")
@click.option("--no-cache", is_flag=True, help="Run every stage, even if nothing changed.")
@click.option(
    "--accept-baseline-reset",
    is_flag=True,
    help="Let a changed signature or metric set go uncompared, or a lost metadata store be begun anew, once.",
)
@click.option("--wait", is_flag=True, help="Wait for another run in this workspace instead of refusing.")
@click.option(
    "--demo", type=click.Choice(["first", "second"]), help="Ingest that half of the embedded data (2011, 2012) first."
)
@json_option
def command(
    settings: Settings, no_cache: bool, demo: Literal["first", "second"] | None, as_json: bool, **options: Any
) -> None:
    """Run the pipeline on the newest span.

    Ends with exit code 0 if the model is pushed, 5 if the data gate refused the data, 6 if the candidate was not
    blessed (the model that serves stays).
    """
    from bike_pipeline.commands import run_view
    from bike_pipeline.use_cases.run import ingest_demo, run

    log = log_file(settings, "run")
    with captured(log) as screen:
        console = console_on(screen)
        for half in ingest_demo(settings, demo) if demo else ():
            if not as_json:
                show(run_view.ingested_half(half), screen)
        try:
            with run_view.view_on(console, silent=as_json) as view:
                result = run(settings, observer=view, cache=not no_cache, **options)
        except BikePipelineError as error:
            failure = {"error": str(error), "exit_code": error.exit_code, "log": str(log)}
            answer(failure, lambda _: f"log: {log}", as_json, screen)
            traceback.print_exc()
            raise
        document = {**asdict(result), "log": str(log)}
        answer(document, lambda _: [*run_view.outcome(result), f"log: {log}"], as_json, screen)
    if result.pushed_version is None:
        raise NotPushedError(
            "the candidate was not blessed, so the serving model stays",
            fix="see the failed gates above; `bike-pipeline models` compares what was trained",
        )
