"""`bike-pipeline reproduce`: whether a model can be made again, and whether it comes out the same."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bike_pipeline.commands.options import FiniteRange, json_option, settings_options
from bike_pipeline.commands.output import Parts, answer, captured, console_on, log_file, show, table

if TYPE_CHECKING:
    from bike_pipeline.lineage.queries.reproducibility import Match
    from bike_pipeline.serving.agreement import Agreement
    from bike_pipeline.settings import Settings


@click.command()
@settings_options
@click.option("--check-only", is_flag=True, help="Only say whether everything is at hand.")
@click.option("--anyway", is_flag=True, help="Run even if code, settings, schema or data differ.")
@click.option(
    "--scratch", type=click.Path(path_type=Path), default=None, help="An empty folder to work in, and to keep."
)
@click.option(
    "--tolerance", type=FiniteRange(min=0), default=0.0, help="Rentals an hour that predictions may be apart."
)
@json_option
@click.argument("model", required=False)
def command(
    settings: Settings,
    check_only: bool,
    anyway: bool,
    scratch: Path | None,
    tolerance: float,
    as_json: bool,
    model: str | None,
) -> None:
    """Make a MODEL again from what is on record, in a scratch folder, and compare predictions and metrics.

    MODEL is a served version, a model's number as `bike-pipeline models` lists it, or a pushed folder; without it, the
    model that serves now. Checks nothing out: if code, settings, schema or data differ, it says so and stops. Ends
    with exit code 16 if something is not at hand, or if the models differ by more than --tolerance.
    """
    from bike_pipeline.commands.run_view import view_on
    from bike_pipeline.use_cases.reproduction import reproduce, reproducibility

    if scratch is not None and scratch.exists() and any(scratch.iterdir()):
        raise click.UsageError(f"--scratch: {scratch} is not empty")
    found = reproducibility(settings, model)
    document = {"model_id": found.model_id, "at_hand": found.at_hand, "matches": [asdict(m) for m in found.matches]}
    if not as_json:
        show([f"model {found.model_id}: what made it, against what is here", _matches(found.matches)])
    if check_only or (not found.at_hand and not anyway):
        answer(document, lambda _: (), as_json)
        found.require()
        return
    with captured(log_file(settings, "reproduce")) as screen, view_on(console_on(screen), silent=as_json) as view:
        made = reproduce(settings, model, anyway=True, scratch=scratch, observer=view)
    answer({**document, "agreement": asdict(made.agreement)}, lambda _: _agreement(made.agreement), as_json)
    made.require(tolerance)


def _matches(found: list[Match]) -> Parts:
    rows = [("✔" if m.same else "✘" if m.needed else "·", m.part, m.name, m.detail) for m in found]
    return table(("mark", "part", "name", "detail"), rows, header=False)


def _agreement(agreement: Agreement) -> Parts:
    from bike_pipeline.use_cases.reproduction import predictions_in_words

    metrics = ", ".join(f"{name} {value:.3g}" for name, value in agreement.metrics.items())
    rows = [
        ("result", "identical" if agreement.identical else "NOT identical"),
        ("predictions", predictions_in_words(agreement)),
        ("largest differences of metrics", metrics or "there are no metrics to compare"),
    ]
    return table(("what", "value"), rows, header=False)
