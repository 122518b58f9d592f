"""Commands that train: `run`, `reproduce`, `track`."""

from __future__ import annotations

import traceback
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from bike_pipeline.commands import shared
from bike_pipeline.errors import BikePipelineError, NotPushedError

if TYPE_CHECKING:
    from bike_pipeline.lineage.queries.reproducibility import Match
    from bike_pipeline.settings import Settings
    from bike_pipeline.use_cases.run import Agreement


@shared.command()
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
@shared.json_option
def run_command(
    settings: Settings, no_cache: bool, demo: Literal["first", "second"] | None, as_json: bool, **options: Any
) -> None:
    """Run the pipeline on the newest span.

    Ends with exit code 0 if the model is pushed, 5 if the data gate refused the data, 6 if the candidate was not
    blessed (the model that serves stays).
    """
    from bike_pipeline.commands import run_view
    from bike_pipeline.use_cases.run import ingest_demo, run

    log = shared.log_file(settings, "run")
    with shared.captured(log) as screen:
        console = shared.console_on(screen)
        for half in ingest_demo(settings, demo) if demo else ():
            if not as_json:
                shared.show(run_view.ingested_half(half), screen)
        try:
            with run_view.view_on(console, silent=as_json) as view:
                result = run(settings, observer=view, cache=not no_cache, **options)
        except BikePipelineError as error:
            failure = {"error": str(error), "exit_code": error.exit_code, "log": str(log)}
            shared.answer(failure, lambda _: f"log: {log}", as_json, screen)
            traceback.print_exc()
            raise
        document = {**asdict(result), "log": str(log)}
        shared.answer(document, lambda _: [*run_view.outcome(result), f"log: {log}"], as_json, screen)
    if result.pushed_version is None:
        raise NotPushedError(
            "the candidate was not blessed, so the serving model stays",
            fix="see the failed gates above; `bike-pipeline models` compares what was trained",
        )


@shared.command()
@click.option("--check-only", is_flag=True, help="Only say whether everything is at hand.")
@click.option("--anyway", is_flag=True, help="Run even if code, settings, schema or data differ.")
@click.option("--scratch", type=shared.PATH, help="An empty folder to work in, and to keep.")
@click.option(
    "--tolerance", type=shared.FiniteRange(min=0), default=0.0, help="Rentals an hour that predictions may be apart."
)
@shared.json_option
@click.argument("model", required=False)
def reproduce_command(
    settings: Settings, scratch: Path | None, tolerance: float, as_json: bool, model: str | None, **asked: bool
) -> None:
    """Make a MODEL again from what is on record, in a scratch folder, and compare predictions and metrics.

    MODEL is a served version, a model's number as `bike-pipeline models` lists it, or a pushed folder; without it, the
    model that serves now. Checks nothing out: if code, settings, schema or data differ, it says so and stops. Ends
    with exit code 16 if something is not at hand, or if the models differ by more than --tolerance.
    """
    from bike_pipeline.commands.run_view import view_on
    from bike_pipeline.use_cases.run import reproduce, reproducibility

    if scratch is not None and scratch.exists() and any(scratch.iterdir()):
        raise click.UsageError(f"--scratch: {scratch} is not empty")
    found = reproducibility(settings, model)
    document = {"model_id": found.model_id, "at_hand": found.at_hand, "matches": [asdict(m) for m in found.matches]}
    if not as_json:
        shared.show([f"model {found.model_id}: what made it, against what is here", _matches(found.matches)])
    if asked["check_only"] or (not found.at_hand and not asked["anyway"]):
        shared.answer(document, lambda _: (), as_json)
        found.require()
        return
    with (
        shared.captured(shared.log_file(settings, "reproduce")) as screen,
        view_on(shared.console_on(screen), silent=as_json) as view,
    ):
        made = reproduce(settings, model, anyway=True, scratch=scratch, observer=view)
    shared.answer({**document, "agreement": asdict(made.agreement)}, lambda _: _agreement(made.agreement), as_json)
    made.require(tolerance)


def _matches(found: list[Match]) -> shared.Parts:
    rows = [("✔" if m.same else "✘" if m.needed else "·", m.part, m.name, m.detail) for m in found]
    return shared.table(("mark", "part", "name", "detail"), rows, header=False)


def _agreement(agreement: Agreement) -> shared.Parts:
    from bike_pipeline.use_cases.run import predictions_in_words

    metrics = ", ".join(f"{name} {value:.3g}" for name, value in agreement.metrics.items())
    rows = [
        ("result", "identical" if agreement.identical else "NOT identical"),
        ("predictions", predictions_in_words(agreement)),
        ("largest differences of metrics", metrics or "there are no metrics to compare"),
    ]
    return shared.table(("what", "value"), rows, header=False)


@shared.command()
@shared.json_option
@click.argument("run", required=False)
def track_command(settings: Settings, as_json: bool, run: str | None) -> None:
    """Send a RUN to MLflow, such as one that ended while the server was down; `bike-pipeline runs` names them all.

    Without RUN, the newest that came to an evaluation. What the server has already is not sent twice. Ends with exit
    code 17 if the server cannot be reached or refuses.
    """
    from bike_pipeline.use_cases.lineage import track

    found = track(settings, run)
    document = {"run_id": found.run_id, **asdict(found.sent)}
    shared.answer(document, lambda _: f"{found.run_id}: {found.sent.in_words()}", as_json)
