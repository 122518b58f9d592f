"""`bike-pipeline feedback …`: labels that arrived after training correct the level of the model that serves."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from bike_pipeline.commands import shared

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings
    from bike_pipeline.use_cases.feedback import FeedbackStatus
    from bike_pipeline.use_cases.feedback_update import FeedbackUpdate


@click.group(name="feedback")
def feedback_command() -> None:
    """Correct the level of the model that serves by labels that arrived after its training."""


@shared.command(feedback_command)
@click.option("--query", help="The SQL query, if LABELS is a database.")
@click.option("--wait", is_flag=True, help="Wait for a run in this workspace instead of refusing.")
@shared.json_option
@click.argument("labels")
def update(settings: Settings, query: str | None, wait: bool, as_json: bool, labels: str) -> None:
    """Make a new version of the model that serves, with LABELS in its state.

    LABELS are rows as of `data ingest`, in any order: a file, a folder, an address, a database with --query. Hours that
    are known already change nothing, another label of a known hour corrects it. The version holds the same formats,
    checked anew, is signed, and serves if promotion is automatic. A row that breaks the contract, and an hour with two
    labels, change nothing and end with exit code 4.
    """
    from bike_pipeline.use_cases.feedback_update import update as use_case

    log = shared.log_file(settings, "feedback")
    with shared.captured(log) as screen:
        with shared.progress_on(screen, silent=as_json):
            made = use_case(settings, labels, query, wait=wait)
        shared.answer(made, lambda found: [*_update_view(found), f"log: {log}"], as_json, screen)


def _update_view(made: FeedbackUpdate) -> list[str]:
    counts = {
        "new": made.counts.new,
        "corrected": made.counts.corrected,
        "known already": made.counts.known,
        "of the training rows, which tell nothing": made.counts.trained,
        "too old": made.counts.too_old,
    }
    hours = "hours: " + ", ".join(f"{number:,} {what}" for what, number in counts.items() if number)
    if made.version is None:
        return [f"nothing new: version {made.before} stays", hours]
    serves = f"NOT serving: {made.not_promoted}" if made.not_promoted else "serving now"
    low, high = made.factors
    return [
        f"version {made.version} of version {made.before}, {serves}",
        hours,
        f"labels from {_time(made.first)} to {_time(made.last)}; answers after that times {low:.2f} to {high:.2f}",
        *(
            f"check {day.day}: {day.rentals:,.0f} rentals in {day.hours} hours where {day.expected:,.0f} were expected;"
            " the day counts up to its bound only"
            for day in made.outlier_days
        ),
        *([f"{made.bounded_groups} groups of hours are at the bound of the level"] if made.bounded_groups else []),
        *(f"left out: {name}, which only a run makes" for name in made.left_out),
        *(f"version {v} waits for `bike-pipeline promote`; its labels are not in this one" for v in made.waiting),
    ]


def _time(moment: str) -> str:
    return moment.replace("T", " ")


@shared.command(feedback_command)
@click.option(
    "--at",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"]),
    help="The local time that is asked about; by default now.",
)
@shared.json_option
def show(settings: Settings, at: datetime | None, as_json: bool) -> None:
    """Show what the model that serves knows of labels, and how much that counts now."""
    from bike_pipeline.use_cases.feedback import show as use_case

    shared.answer(use_case(settings, at), _show_view, as_json)


def _show_view(found: FeedbackStatus) -> shared.Parts:
    updates = "1 update" if found.updates == 1 else f"{found.updates} updates"
    head = f"version {found.version} (model {found.model_id}), {updates} by labels"
    if not found.labels:
        return [head, "no labels are known: nothing is corrected"]
    rows = []
    for group in found.groups:
        interval = "-" if group.interval is None else f"{group.interval[0]:.0f} to {group.interval[1]:.0f}"
        rows.append((group.day, group.hours, "rain" if group.rain else "dry", f"{group.factor:.3f}", interval))
    interval_column = f"{found.nominal:.0%} around 100"
    table = shared.table(
        ("day", "hours", "weather", "factor", interval_column), rows, right=("factor", interval_column)
    )
    return [
        head,
        f"labels: {found.labels:,} hours from {_time(found.first)} to {_time(found.as_of)}",
        f"at {_time(found.at)}: {_age(found)}",
        table,
        *([f"backtest on the eval split: {found.backtest.reason}"] if found.backtest else []),
    ]


def _age(found: FeedbackStatus) -> str:
    if found.days <= 0:
        return "answers are those of training: the state says nothing of hours up to its last label"
    days = f"labels are {found.days:.0f} days old"
    if found.weight == 1.0:
        return f"{days}; the level counts whole"
    return f"stale: {days}; the level has waned to {found.weight:.0%}" if found.weight else f"none any more: {days}"


@shared.command(feedback_command)
@click.option("--reason", default="", help="Why, for the history.")
@shared.json_option
def rollback(settings: Settings, reason: str, as_json: bool) -> None:
    """Let the version of the same model serve that served before, without the newest labels."""
    from bike_pipeline.use_cases.feedback import rollback as use_case

    shared.answer(
        use_case(settings, reason),
        lambda change: f"version {change.to_version} is {change.label} again, version {change.from_version} is not",
        as_json,
    )
