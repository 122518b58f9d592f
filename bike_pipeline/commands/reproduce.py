"""`bike-pipeline reproduce`: whether a model can be made again, and whether it comes out the same."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bike_pipeline.commands.options import FiniteRange, settings_options
from bike_pipeline.errors import VerificationError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from bike_pipeline.lineage.queries.model_lookup import ChosenModel
    from bike_pipeline.lineage.queries.reproducibility import Match, Origin
    from bike_pipeline.lineage.store.metadata_store import Lineage
    from bike_pipeline.serving.agreement import Agreement
    from bike_pipeline.settings import Settings

# TFX's name for the SavedModel in a Model artifact.
_SERVING = "Format-Serving"


@click.command()
@settings_options
@click.option("--check-only", is_flag=True, help="Only say whether everything is at hand.")
@click.option("--anyway", is_flag=True, help="Run even where code, settings, schema or data differ.")
@click.option(
    "--scratch", type=click.Path(path_type=Path), default=None, help="An empty folder to work in, and to keep."
)
@click.option(
    "--tolerance", type=FiniteRange(min=0), default=0.0, help="Rentals an hour that predictions may be apart."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON and nothing else.")
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
    model that serves now. Checks nothing out: where code, settings, schema or data differ, it says so and stops. Ends
    with exit code 16 where something is not at hand, or where the models differ by more than --tolerance.
    """
    from bike_pipeline.commands.output import console_on
    from bike_pipeline.lineage.queries.history import History
    from bike_pipeline.lineage.queries.model_lookup import chosen_model
    from bike_pipeline.lineage.queries.reproducibility import matches, origin_of
    from bike_pipeline.use_cases.metadata import lineage_of

    lineage = lineage_of(settings)
    chosen = chosen_model(lineage, settings.serving_path, model)
    origin = origin_of(lineage, History(lineage), chosen.model_id)
    found = matches(origin, settings.store_uri)
    differing = [match for match in found if match.needed and not match.same]
    result: dict[str, Any] = {"model_id": chosen.model_id, "at_hand": not differing}
    result["matches"] = [asdict(match) for match in found]
    if not as_json:
        click.echo(f"model {chosen.model_id}: what made it, against what is here")
        console_on(sys.stdout).print(_matches(found))
    if check_only or (differing and not anyway):
        if as_json:
            click.echo(json.dumps(result, indent=2))
        if differing:
            raise _not_at_hand(origin, differing)
        return
    agreement = _again(settings, lineage, chosen, origin, scratch, as_json)
    within = agreement.identical or (
        tolerance > 0.0 and agreement.largest_difference is not None and agreement.largest_difference <= tolerance
    )
    if as_json:
        click.echo(json.dumps({**result, "agreement": asdict(agreement)}, indent=2))
    else:
        console_on(sys.stdout).print(_agreement(agreement))
    if not within:
        raise VerificationError(
            f"model {chosen.model_id} did not come out the same: {_apart(agreement)}",
            fix="another machine or other package versions round otherwise; --tolerance says what may be apart",
        )


def _not_at_hand(origin: Origin, differing: list[Match]) -> VerificationError:
    first = differing[0]
    more = f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""
    commit = origin.source.code.commit if origin.source else ""
    dirty = bool(origin.source and origin.source.code.dirty)
    fix = f"check out commit {commit[:12]}" if commit else "bring back what the model was made of"
    if dirty:
        fix += " (its tree had changes that were not committed)"
    return VerificationError(
        f"not everything that made model {origin.model_id} is at hand: {first.part}: {first.name}: "
        f"{first.detail.rstrip('.')}{more}",
        fix=f"{fix}, or run all the same with --anyway",
    )


def _again(
    settings: Settings, lineage: Lineage, chosen: ChosenModel, origin: Origin, scratch: Path | None, silent: bool
) -> Agreement:
    """Run the pipeline in a scratch root and compare what it trains with the model."""
    from datetime import UTC, datetime

    from bike_pipeline.commands.output import console_on
    from bike_pipeline.log_capture import captured

    if scratch is not None and scratch.exists() and any(scratch.iterdir()):
        raise click.UsageError(f"--scratch: {scratch} is not empty")
    folder = scratch.absolute() if scratch else Path(tempfile.mkdtemp(prefix="bike-reproduce-"))
    log_file = settings.logs_path / f"reproduce-{datetime.now(UTC):%Y%m%dT%H%M%S}.log"
    try:
        with captured(log_file) as screen:
            console = console_on(screen)
            return _run_and_compare(settings, lineage, chosen, origin, folder, console, silent)
    finally:
        if scratch is None:
            shutil.rmtree(folder, ignore_errors=True)


def _run_and_compare(
    settings: Settings,
    lineage: Lineage,
    chosen: ChosenModel,
    origin: Origin,
    folder: Path,
    console: Console,
    silent: bool,
) -> Agreement:
    from bike_pipeline.commands import run_view
    from bike_pipeline.commands.model_source import payload_of
    from bike_pipeline.commands.run import runner_named
    from bike_pipeline.lineage.queries.evidence import evidence_of
    from bike_pipeline.lineage.queries.reproducibility import scratch_settings
    from bike_pipeline.serving.agreement import agreement_of
    from bike_pipeline.use_cases.metadata import lineage_of

    own = scratch_settings(origin, settings.store_uri, folder)
    view: Any = run_view.SilentView(console) if silent else run_view.LinesView(console)
    with view:
        runner_named("local")(own, view, False).run(enable_cache=False)
    scratch_lineage = lineage_of(own)
    again = scratch_lineage.models()[-1]
    return agreement_of(
        payload_of(lineage, chosen),
        Path(again.uri) / _SERVING,
        _rows(own),
        evidence_of(lineage, chosen.model_id, pushed=chosen.push is not None)["metrics"],
        evidence_of(scratch_lineage, again.model_id, pushed=False)["metrics"],
    )


def _rows(settings: Settings) -> dict[str, Any]:
    """Return every row of the scratch store, by column."""
    import pyarrow as pa

    from bike_pipeline import features
    from bike_pipeline.data.spans import SpanStore

    store = SpanStore(settings.store_uri)
    table = pa.concat_tables(store.read(found.span, found.version) for found in store.all_versions())
    return {feature.name: table.column(feature.name).to_numpy() for feature in features.MODEL_INPUTS}


def _matches(found: list[Match]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    for name in ("mark", "part", "name", "detail"):
        table.add_column(name, overflow="fold")
    for match in found:
        table.add_row("✔" if match.same else "✘" if match.needed else "·", match.part, match.name, match.detail)
    return table


def _agreement(agreement: Agreement) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column("what")
    table.add_column("value", overflow="fold")
    table.add_row("result", "identical" if agreement.identical else "NOT identical")
    table.add_row("predictions", _predictions(agreement))
    metrics = ", ".join(f"{name} {value:.3g}" for name, value in agreement.metrics.items())
    table.add_row("largest differences of metrics", metrics or "there are no metrics to compare")
    return table


def _predictions(agreement: Agreement) -> str:
    if not agreement.rows:
        return "the model's files are gone, so only metrics can be compared"
    if not agreement.different_rows:
        return f"the same on all {agreement.rows:,} rows, bit for bit"
    return (
        f"{agreement.different_rows:,} of {agreement.rows:,} rows differ, by up to "
        f"{agreement.largest_difference:.3g} rentals an hour"
    )


def _apart(agreement: Agreement) -> str:
    worst = max(agreement.metrics.items(), key=lambda entry: entry[1], default=None)
    metric = f"; {worst[0]} by up to {worst[1]:.3g}" if worst else "; there are no metrics to compare"
    return _predictions(agreement) + metric
