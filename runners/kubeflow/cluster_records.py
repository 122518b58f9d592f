"""What Kubeflow Pipelines keeps, as far as commands show it: versions, runs, schedules."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

_BROKEN = ("FAILED", "CANCELED")


@dataclass(frozen=True)
class Version:
    """A pipeline version on the server; `created` is False where the same spec was there before the upload."""

    pipeline_id: str
    version_id: str
    name: str
    created: bool


@dataclass(frozen=True)
class Run:
    """A run as the server reports it.

    Attributes:
        address: its page for people.
        state: v2beta1 RuntimeState, such as RUNNING.
        tasks: state of each task that was started, by name, in the order of their start.
        error: the server's reason if the run failed.
    """

    run_id: str
    name: str
    address: str
    state: str
    tasks: dict[str, str] = field(default_factory=dict)
    error: str = ""

    @property
    def failed_tasks(self) -> tuple[str, ...]:
        """The tasks that failed by themselves or were cancelled."""
        return tuple(name for name, state in self.tasks.items() if state in _BROKEN)


@dataclass(frozen=True)
class Schedule:
    """A recurring run; its trigger is "cron …" or "every … s"."""

    schedule_id: str
    name: str
    trigger: str
    enabled: bool
    version_id: str


def schedule_of(answer: Any) -> Schedule:
    """Return a recurring run as the API's own model has it."""
    trigger = answer.trigger
    if trigger and trigger.cron_schedule and trigger.cron_schedule.cron:
        text = f"cron {trigger.cron_schedule.cron}"
    elif trigger and trigger.periodic_schedule and trigger.periodic_schedule.interval_second:
        text = f"every {trigger.periodic_schedule.interval_second} s"
    else:
        text = "-"
    reference = answer.pipeline_version_reference
    return Schedule(
        schedule_id=str(answer.recurring_run_id),
        name=str(answer.display_name),
        trigger=text,
        enabled=str(answer.status or answer.mode) in {"ENABLED", "ENABLE"},
        version_id=str(getattr(reference, "pipeline_version_id", "") or ""),
    )
