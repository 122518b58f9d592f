"""`bike-pipeline rollout …`: a version takes over step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bike_pipeline.commands import shared

if TYPE_CHECKING:
    from bike_pipeline.model_registry.deployment import Change
    from bike_pipeline.rollout.delivery.controller import Look
    from bike_pipeline.settings import Settings
    from bike_pipeline.use_cases.rollout import Kind, RolloutStatus

_reason = click.option("--reason", default="", help="Why, for the history.")


@click.group(name="rollout")
def rollout_command() -> None:
    """Let a version take over step by step, judged at each, and go back by itself when it is bad."""


@shared.command(rollout_command)
@click.option(
    "--kind",
    type=click.Choice(["canary", "shadow", "challenger"]),
    default="canary",
    show_default=True,
    help="Answer a growing share; be asked besides, unheard; or an A/B test.",
)
@_reason
@shared.json_option
@click.argument("version", type=int)
def start(settings: Settings, kind: Kind, reason: str, as_json: bool, version: int) -> None:
    """Validate VERSION if that was not done, and give it its first share of the requests."""
    from bike_pipeline.use_cases.rollout import start as use_case

    with shared.captured(shared.log_file(settings, "rollout")) as screen:
        shared.answer(use_case(settings, version, kind, reason), _changed, as_json, screen)


def _changed(change: Change) -> str:
    share = f" at {change.share:g} %" if change.share is not None else ""
    return f"{change.action}: version {change.to_version} {change.label}{share}: {change.reason}"


@shared.command(rollout_command)
@shared.json_option
def status(settings: Settings, as_json: bool) -> None:
    """Show the step, each check with its figures, the verdict, and what the candidate's safety is made of."""
    from bike_pipeline.use_cases.rollout import status as use_case

    shared.answer(use_case(settings), _status_view, as_json)


def _status_view(found: RolloutStatus) -> shared.Parts:
    look, position = found.look, found.look.position
    if position is None or found.safety is None:
        return look.reason
    since = f"{position.since:%Y-%m-%d %H:%M} UTC"
    checks = [
        (one.name, one.status, one.figures if one.required else f"{one.figures} (optional)") for one in look.checks
    ]
    parts = [(p.name, "missing" if p.value is None else f"{p.value:.2f}", p.why) for p in found.safety.parts]
    return [
        f"version {position.version} is {position.label} at {position.share:g} % since {since}",
        f"{look.verdict}: {look.reason}",
        shared.table(("check", "", "figures"), checks),
        f"safety {found.safety.score:.2f}, the mean of its parts:",
        shared.table(("part", "", "of"), parts, right=("",)),
    ]


@shared.command(rollout_command)
@click.option("--reason", required=True, help="Why, for the history.")
@shared.json_option
def approve(settings: Settings, reason: str, as_json: bool) -> None:
    """Let a rollout go on that waits for a person (rollout.approval)."""
    from bike_pipeline.use_cases.rollout import approve as use_case

    shared.answer(use_case(settings, reason), _line, as_json)


@shared.command(rollout_command)
@click.option("--reason", required=True, help="Why, for the history.")
@shared.json_option
def abort(settings: Settings, reason: str, as_json: bool) -> None:
    """End the rollout: its version gets no more requests."""
    from bike_pipeline.use_cases.rollout import abort as use_case

    shared.answer(use_case(settings, reason), _changed, as_json)


@shared.command(rollout_command)
@click.option("--once", is_flag=True, help="Look once, do what there is to do, and end.")
@click.option("--forever", is_flag=True, help="Go on after a rollout has ended, for the next one.")
@shared.json_option
def watch(settings: Settings, once: bool, forever: bool, as_json: bool) -> None:
    """Judge the rollout again and again, and shift, promote or abort as the verdict says, until it has ended.

    May be killed at any time and begun again. Ends with exit code 20 if the version was rolled back. With --json, a
    line for each change of the verdict.
    """
    from bike_pipeline.use_cases.rollout import watch as use_case

    last: list[str] = []

    def looked(look: Look) -> None:
        # A step that holds says the same again and again with other numbers.
        key = _line(look) if look.change else f"{look.verdict} {look.position} {look.problem}"
        if [key] != last:
            last[:] = [key]
            shared.show(" ".join(shared.as_document(look).split()) if as_json else _line(look))

    use_case(settings, once=once, forever=forever, looked=looked)


def _line(look: Look) -> str:
    words = _changed(look.change) if look.change else f"{look.verdict}: {look.reason}"
    return f"{words}; {look.problem}" if look.problem else words
