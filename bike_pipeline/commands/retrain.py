"""`bike-pipeline watch`, `retrain` and `triggers …`: continuous training."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bike_pipeline.commands import shared

if TYPE_CHECKING:
    from bike_pipeline.retraining.events import RecordedEvent, Run
    from bike_pipeline.settings import Settings
    from bike_pipeline.use_cases.retraining import Explanation, Retrained, Triggers
    from bike_pipeline.use_cases.retraining_prices import Pricing
    from bike_pipeline.use_cases.simulation import Simulation

_SHORT = 12


@shared.command()
@click.option("--once", is_flag=True, help="Ask each trigger once, do what there is to do, and end.")
@click.option("--listen", metavar="HOST:PORT", help="Take notifications there (retraining.listen).")
@shared.json_option
def watch_command(settings: Settings, once: bool, listen: str | None, as_json: bool) -> None:
    """Ask the triggers of retraining.triggers again and again, and run the pipeline once for each change.

    Ends with Ctrl-C or SIGTERM; what was under way goes on with the next `watch`. With --json, a line for each run.

    With --listen, CloudEvents of storages at /events let the triggers look at once, and Alertmanager's webhook at
    /retraining asks for a run. Both send the token of retraining.token_file.
    """
    from bike_pipeline.use_cases.retraining import watch

    stop = threading.Event()
    with shared.captured(shared.log_file(settings, "watch")) as screen:

        def ended(run: Run) -> None:
            shared.show(json.dumps(_run_document(run)) if as_json else _run_line(run), screen)

        def finished(stage: str, state: str) -> None:
            if not as_json:
                shared.show(f"  {stage}: {state}", screen)

        def started(address: str) -> None:
            if as_json:
                shared.show(json.dumps({"listens": address}), screen)
            else:
                told = f"; listening at {address}" if address else ""
                shared.show(f"watching: {', '.join(settings.retraining.triggers)}{told}; Ctrl-C ends it", screen)

        if listen is not None:
            section = settings.retraining.model_copy(update={"listen": listen})
            settings = settings.model_copy(update={"retraining": section})
        runs = watch(settings, once=once, ended=ended, finished=finished, started=started, stop=stop)
        if once and not runs and not as_json:
            shared.show("nothing to do; `bike-pipeline triggers list` says why", screen)


def _run_document(run: Run) -> dict[str, Any]:
    return {"run": run.number, "state": run.state, "why": run.why, "reason": run.reason, **run.facts}


def _run_line(run: Run) -> str:
    return f"run {run.number} ({run.reason}): {run.state}, {run.why}"


@shared.command()
@click.option("--because", required=True, help="Why, for the ledger and the history.")
@click.option("--data", type=shared.FILE, help="A CSV or Parquet file of rows that is ingested first.")
@click.option("--hops", type=click.IntRange(0, 100), default=0, help="Runs in the chain of causes before this one.")
@shared.json_option
def retrain_command(settings: Settings, because: str, data: Path | None, hops: int, as_json: bool) -> None:
    """Run the pipeline for a reason, once, and keep in the ledger what came of it.

    Ends with exit code 0 if the model serves or waits for `promote`, 6 if it was refused, 10 if the run failed.
    """
    from bike_pipeline.errors import NotPushedError, StageError
    from bike_pipeline.retraining.events import State
    from bike_pipeline.use_cases.retraining import retrain

    with shared.captured(shared.log_file(settings, "retrain")) as screen:

        def finished(stage: str, state: str) -> None:
            if not as_json:
                shared.show(f"  {stage}: {state}", screen)

        made = retrain(settings, because, data, hops=hops, finished=finished)
        shared.answer(made, _retrained, as_json, screen)
    state, fix = made.event.state, f"`bike-pipeline triggers explain {made.event.identity[:_SHORT]}` says more"
    if state in (State.REFUSED, State.DEAD):
        raise NotPushedError(f"the event is {state}", fix=fix)
    if state is State.FAILED:
        raise StageError("the run failed, and is tried again by whoever watches", fix=fix)


def _retrained(made: Retrained) -> list[str]:
    if made.run is None:
        return [f"event {made.event.identity[:_SHORT]} is {made.event.state}: the process that watches does the rest"]
    return [_run_line(made.run)]


@shared.command()
@click.option("--weekly", is_flag=True, required=True, help="Play the embedded years week by week.")
@click.option(
    "--every",
    type=click.IntRange(7),
    multiple=True,
    default=(14, 28),
    show_default=True,
    metavar="DAYS",
    help="Days between runs by the calendar; several times for several policies.",
)
@click.option("--seed", default=1, show_default=True, help="Of late uploads, outages, poisoned uploads and drift.")
@click.option("--calm", is_flag=True, help="Without any of these: each upload comes when its week is over.")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="For picture and figures; by default <workspace>/reports.",
)
@shared.json_option
def simulate_command(
    settings: Settings, weekly: bool, every: tuple[int, ...], seed: int, calm: bool, output: Path | None, as_json: bool
) -> None:
    """Tell what policies of retraining would have made of the embedded years, with the product's gate and feedback."""
    from bike_pipeline.use_cases.simulation import simulate

    assert weekly
    log = shared.log_file(settings, "simulate")
    with shared.captured(log) as screen, shared.progress_on(screen, silent=as_json):
        found = simulate(settings, every=every, seed=seed, injections=not calm, output=output)
    shared.answer(found, _simulation, as_json)


def _simulation(found: Simulation) -> shared.Parts:
    head = ("policy", "trainings", "CPU s", "MAE", "RMSE", "avoided", "per CPU s")
    rows = [
        (
            one.policy,
            len(one.trained),
            f"{one.cpu_seconds:.0f}",
            f"{one.mae:.2f}",
            f"{one.rmse:.2f}",
            f"{one.avoided:,.0f}",
            f"{one.avoided_per_cpu_second:,.0f}" if one.trained else "",
        )
        for one in found.outcomes
    ]
    passed = [kind for kind, reason in found.poisoned if not reason]
    return [
        shared.table(head, rows),
        "avoided: rentals of absolute error less than with the first model alone",
        f"poisoned uploads refused: {len(found.poisoned) - len(passed)} of {len(found.poisoned)}",
        *(f"not refused: {kind}" for kind in passed),
        *(f"a sound upload was refused, of the week from {day}: {reason}" for day, reason in found.refused.items()),
        f"picture: {found.picture}, figures: {found.figures}",
    ]


@click.group(name="triggers")
def triggers_command() -> None:
    """Show what triggers saw, what came of it, and why something did not fire; pause, retry, drop."""


@shared.command(triggers_command, "list")
@shared.json_option
def list_(settings: Settings, as_json: bool) -> None:
    """List the events, newest last, and what each trigger said when it was asked last."""
    from bike_pipeline.use_cases.retraining import triggers

    shared.answer(triggers(settings), _triggers_view, as_json)


def _triggers_view(found: Triggers) -> shared.Parts:
    events = [
        (
            one.identity[:_SHORT],
            _at(one.first_seen),
            one.event.trigger,
            one.event.name,
            one.state,
            one.run or "",
            one.why,
        )
        for one in found.events
    ]
    checks = [(row["trigger_name"], row["source"], row["name"], _at(row["at"]), row["note"]) for row in found.checks]
    return [
        f"paused: {found.paused}" if found.paused else f"watching: {found.watching or 'nobody'}",
        shared.table(("event", "seen", "trigger", "name", "state", "run", "why"), events) if events else "no events",
        *([shared.table(("trigger", "source", "name", "asked", "said"), checks)] if checks else []),
    ]


def _about(one: RecordedEvent) -> tuple[str, str, str]:
    return one.event.trigger, one.event.name, one.state


def _at(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment).astimezone():%Y-%m-%d %H:%M:%S}"


@shared.command(triggers_command)
@shared.json_option
@click.argument("about")
def explain(settings: Settings, about: str, as_json: bool) -> None:
    """Explain ABOUT: an event by the beginning of its identity or its name, or why a trigger or a file made none."""
    from bike_pipeline.use_cases.retraining import explain_trigger

    shared.answer(explain_trigger(settings, about), _explanation, as_json)


def _explanation(found: Explanation | list[Any]) -> shared.Parts:
    if isinstance(found, list):
        rows = [(row["trigger_name"], row["source"], row["name"], _at(row["at"]), row["note"]) for row in found]
        return shared.table(("trigger", "source", "name", "asked", "said"), rows)
    one = found.event
    history = [(_at(row["at"]), f"{row['before'] or '·'} → {row['after']}", row["why"]) for row in found.transitions]
    decisions = [
        (_at(row["first_at"]), _at(row["last_at"]), "fired" if row["fired"] else "waited", row["reason"], _price(row))
        for row in found.decisions
    ]
    estimates = {row["price"]["estimate"]: None for row in found.decisions if row["price"]}
    return [
        f"{one.event.trigger}: {one.event.name or one.event.reason}, from {one.event.source}",
        f"event {one.identity}, content {one.event.digest[:_SHORT]}…, {one.sightings} sightings, {one.event.hops} hops",
        f"{one.state}: {one.why}" if one.why else str(one.state),
        shared.table(("at", "state", "why"), history),
        *([shared.table(("from", "to", "decision", "why", "avoided"), decisions)] if decisions else []),
        *(f"an estimate: {words}" for words in estimates if words),
        *(_run_line(run) for run in found.runs),
    ]


def _price(row: Mapping[str, Any]) -> str:
    if not (price := row["price"]):
        return ""
    about = "about " if price["estimate"] else ""
    spent = price["cpu_seconds"]
    cost = "CPU seconds not known" if spent is None else f"{spent:.0f} CPU s"
    return f"{about}{price['avoided']:,.0f} rentals in {price['hours']:,} hours, {cost}"


@shared.command(triggers_command, "price")
@shared.json_option
def price_command(settings: Settings, as_json: bool) -> None:
    """Tell what each decision was worth, by the labels that have come since; `triggers explain` shows it."""
    from bike_pipeline.use_cases.retraining_prices import price

    with shared.captured(shared.log_file(settings, "price")):
        found = price(settings)
    shared.answer(found, _pricing, as_json)


def _pricing(found: Pricing) -> list[str]:
    return [f"{found.priced} decisions have a price, {found.waiting} wait for labels or a model", *found.problems]


@shared.command(triggers_command)
@shared.json_option
@click.argument("event")
def retry(settings: Settings, event: str, as_json: bool) -> None:
    """Let an EVENT that failed, was refused or is dead wait for a run again."""
    from bike_pipeline.use_cases.retraining import retry as use_case

    shared.answer(use_case(settings, event), _state, as_json)


@shared.command(triggers_command)
@click.option("--because", default="dropped by a person", help="Why, for the ledger.")
@shared.json_option
@click.argument("event")
def drop(settings: Settings, event: str, because: str, as_json: bool) -> None:
    """Give up an EVENT that waits; `retry` brings it back."""
    from bike_pipeline.use_cases.retraining import drop as use_case

    shared.answer(use_case(settings, event, because), _state, as_json)


def _state(one: RecordedEvent) -> str:
    return f"event {one.identity[:_SHORT]} is {one.state}: {one.why}"


@shared.command(triggers_command)
@click.option("--because", required=True, help="Why, for the ledger.")
def pause(settings: Settings, because: str) -> None:
    """Let no run begin until `triggers resume`; what triggers see is kept."""
    from bike_pipeline.use_cases.retraining import pause as use_case

    use_case(settings, because)
    shared.show("paused: what triggers see waits for `bike-pipeline triggers resume`")


@shared.command(triggers_command)
def resume(settings: Settings) -> None:
    """Let runs begin again."""
    from bike_pipeline.use_cases.retraining import pause as use_case

    use_case(settings, "")
    shared.show("runs may begin again")
