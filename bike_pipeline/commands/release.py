"""Commands about which version serves: `promote`, `rollback`, `rollout`, `history`, `feedback`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bike_pipeline.commands.feedback import feedback_command
from bike_pipeline.commands.rollout import rollout_command
from bike_pipeline.commands.shared import Parts, answer, captured, command, json_option, table

__all__ = ["feedback_command", "history_command", "promote_command", "rollback_command", "rollout_command"]

if TYPE_CHECKING:
    from bike_pipeline.model_registry.deployment import Change
    from bike_pipeline.settings import Settings


@command()
@click.option("--label", default="stable", show_default=True, help="The label that the version gets.")
@click.option("--reason", default="", help="Why, for the history.")
@json_option
@click.argument("version", type=int, required=False)
def promote_command(settings: Settings, label: str, reason: str, as_json: bool, version: int | None) -> None:
    """Promote VERSION, the newest pushed one by default: validate it if that was not done, then let it serve.

    A version that does not pass is refused with exit code 20, and what was promoted before still is. The servers of
    serving.promotion.servers are told. With --json, null if there was no change to make.
    """
    from bike_pipeline.use_cases.serving import promote, version_to_promote

    chosen = version_to_promote(settings, version)
    with captured(settings.logs_path / "promote.log") as screen:
        change = promote(settings, chosen, label, reason)
        answer(change, lambda made: _text(made, chosen, label), as_json, screen)


def _text(change: Change | None, version: int, label: str) -> str:
    if change is None:
        return f"version {version} is {label} already"
    before = "" if change.from_version is None else f" instead of version {change.from_version}"
    return f"version {version} is {label} now{before}"


@command()
@click.option("--to", type=int, help="The version to go back to; by default the one before.")
@click.option("--label", default="stable", show_default=True, help="The label that it gets back.")
@click.option("--reason", default="", help="Why, for the history.")
@json_option
def rollback_command(settings: Settings, to: int | None, label: str, reason: str, as_json: bool) -> None:
    """Go back to a version that was promoted before. It was validated then, so nothing is loaded and nothing waits.

    The next run compares its candidate with that version, and no run promotes the one that was left again.
    """
    from bike_pipeline.use_cases.serving import rollback

    answer(
        rollback(settings, to, label, reason),
        lambda change: f"version {change.to_version} is {label} again, version {change.from_version} is not",
        as_json,
    )


@command()
@json_option
def history_command(settings: Settings, as_json: bool) -> None:
    """List what was validated, promoted, shifted and taken back: when, by whom, from and to which version, and why."""
    from bike_pipeline.use_cases.serving import history

    answer(history(settings), _view, as_json)


def _view(changes: list[Change]) -> Parts:
    if not changes:
        return "no promotion is recorded yet"
    rows = []
    for change in changes:
        versions = ("-" if v is None else v for v in (change.from_version, change.to_version))
        when, share = change.at[:19].replace("T", " "), "-" if change.share is None else f"{change.share:g} %"
        rows.append(
            (
                change.revision,
                when,
                change.who,
                change.action,
                change.label or "-",
                *versions,
                share,
                change.reason or "-",
            )
        )
    return table(("", "when (UTC)", "who", "what", "label", "from", "to", "share", "why"), rows)
