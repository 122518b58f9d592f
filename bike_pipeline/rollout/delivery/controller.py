"""The controller of a rollout: looks at a step's evidence, and shifts, promotes or aborts through the promotion log.

All of its state is in that log: which label has which share since when. So it may be killed at any moment, and two of
them make a step once: each changes only the revision that it has judged by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from bike_pipeline.errors import BikePipelineError, BusyError, ModelError, ServerError
from bike_pipeline.model_registry import ModelRegistry
from bike_pipeline.model_registry.deployment import STABLE, Change
from bike_pipeline.rollout.delivery.evidence import EvidenceReader, Tracked
from bike_pipeline.rollout.delivery.judging import ANSWERS, DIFFERENCE, Check, Status, Verdict, bad_among, checks_of
from bike_pipeline.rollout.delivery.position import Position, position_of
from bike_pipeline.rollout.promotion import RolloutTargets, roll_out
from bike_pipeline.rollout.tracks import CANARY, SHADOW
from bike_pipeline.settings.rollout import RolloutSettings, RolloutStepSettings

# Latencies of the stable version in a window whose 99th percentile tells something.
_FEW = 100
# From this safety on, the first step is left out.
_SAFE = 0.8


@dataclass(frozen=True)
class Look:
    """What a look at a rollout found.

    Attributes:
        position: where it stands; None without a rollout.
        verdict: what its step came to.
        reason: why, with the figures.
        next_percent: what its version gets next; 100 is a promotion.
        next_label: the label that it gets that by.
        checks: each check.
        change: what was changed.
        problem: a server that does not follow, and is told again at the next step.
    """

    position: Position | None
    verdict: Verdict
    reason: str
    next_percent: float = 0.0
    next_label: str = ""
    checks: Sequence[Check] = ()
    change: Change | None = None
    problem: BikePipelineError | None = None


def plan_of(
    label: str, settings: RolloutSettings, safety: float, share: float | None = None
) -> list[RolloutStepSettings]:
    """Return the steps before a promotion: of a safe candidate fewer, and of an unsafe one slower.

    The step of the `share` that it has is never left out.
    """
    steps, last = list(settings.steps), settings.steps[-1]
    if label != CANARY:
        percent = settings.first_percent(label)
        steps = [RolloutStepSettings.model_construct(percent=percent, requests=last.requests, minutes=last.minutes)]
    elif safety >= _SAFE and len(steps) > 1 and steps[0].percent != share:
        del steps[0]
    pace = 1 + (settings.slowest - 1) * (1 - safety)
    return [
        step.model_copy(update={"requests": round(step.requests * pace), "minutes": step.minutes * pace})
        for step in steps
    ]


class Delivery:
    """Judges and moves the rollout of a registry."""

    def __init__(
        self,
        base_path: str,
        targets: RolloutTargets,
        settings: RolloutSettings,
        reader: EvidenceReader,
        safety: Callable[[Position], float],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Prepare; `safety` says how safe a candidate is, 0 to 1 (see `safety`)."""
        self._base_path, self._targets, self._settings = base_path, targets, settings
        self._reader, self._safety, self._now = reader, safety, now
        self._told: int | None = None

    def look(self) -> Look:
        """Judge the step; nothing is changed."""
        position = position_of(ModelRegistry(self._base_path))
        if position is None:
            return Look(None, Verdict.NO_ROLLOUT, "no version is being rolled out")
        label, settings = position.label, self._settings
        steps = plan_of(label, settings, self._safety(position), position.share)
        now_at = next((step for step in reversed(steps) if step.percent <= position.share), steps[0])
        following = next((step.percent for step in steps if step.percent > position.share), 100.0)
        if label == SHADOW and settings.after_shadow == CANARY:
            label, following = CANARY, settings.first_percent(CANARY)
        try:
            verdict, reason, checks = self._judge(position, now_at, following)
        except BikePipelineError as error:
            verdict, reason, checks = Verdict.HOLD, f"not judged: {error}", []
        return Look(position, verdict, reason, following, label, checks)

    def _judge(
        self, position: Position, step: RolloutStepSettings, following: float
    ) -> tuple[Verdict, str, Sequence[Check]]:
        settings, now = self._settings, self._now()
        tracked = Tracked(position.label, position.version, position.stable)
        window, elapsed = timedelta(seconds=settings.window_seconds), now - position.since
        # Windows begin at fixed times, whenever somebody looks: a start that slid along would be a new test each time.
        recent = position.since + max(elapsed // window - 1, 0) * window
        newest = self._reader.read(tracked, recent, now)
        # They are few, so that what is bad now is found soon, however much the step has seen. None of them passes.
        checks = checks_of(newest, position.label, min(step.requests, _FEW), settings)
        if not bad_among(checks):
            whole = self._reader.read(tracked, position.since, now)
            unsound = [check for check in checks if check.status is Status.NOT_FINITE]
            checks = checks_of(whole, position.label, step.requests, settings) + unsound
        if bad := bad_among(checks) or [check for check in checks if check.status is Status.NOT_FINITE]:
            verdict = Verdict.NOT_FINITE if bad[0].status is Status.NOT_FINITE else Verdict.ROLLBACK
            return verdict, "; ".join(check.in_words for check in bad), checks
        if not newest.candidate.requests:
            reason = f"no request came to {position.label} since {recent:%H:%M:%S} UTC"
            if position.label == SHADOW:
                reason += ", or its server keeps no request log, which alone tells of a shadow"
            return Verdict.NO_TRAFFIC, reason, checks
        if whole.only_refused:
            counts = (
                f"{whole.candidate.requests:,} requests to {position.label} and {whole.stable.requests:,} to stable"
            )
            return Verdict.HOLD, f"only client errors: all {counts} are refused; look at what clients send", checks
        shown = (ANSWERS, DIFFERENCE)
        figures = "; ".join(
            c.in_words for c in checks if c.required or c.status != Status.NOT_JUDGED or c.name in shown
        )
        missing = [check for check in checks if check.required and check.status is not Status.PASSED]
        missing += [check for check in checks if check.status is Status.UNSURE and check not in missing]
        if missing:
            return Verdict.HOLD, "; ".join(check.in_words for check in missing), checks
        if elapsed < timedelta(minutes=step.minutes):
            return Verdict.HOLD, f"{elapsed.total_seconds() / 60:.1f} of {step.minutes:.1f} minutes; {figures}", checks
        if following in settings.approval:
            return Verdict.WAITS, f"{following:g} % needs an approval; {figures}", checks
        return Verdict.PROMOTE if following >= 100 else Verdict.CONTINUE, figures, checks

    def step(self, approval: str = "") -> Look:
        """Judge the step, do what the verdict says, and tell the servers; with an `approval`, go on where it waits."""
        found = self.look()
        if found.position is not None:
            registry = ModelRegistry(self._base_path, revision=found.position.revision)
            try:
                found = self._act(registry, found, found.position, approval)
            except BusyError:
                # Whoever did it judged for itself.
                found = replace(found, verdict=Verdict.HOLD, reason="somebody else changes it")
        state = ModelRegistry(self._base_path).deployment()
        if state is not None and state.revision != self._told:
            try:
                roll_out(self._base_path, self._targets)
                self._told = state.revision
            except ServerError as error:
                found = replace(found, problem=error)
        return found

    def _act(self, registry: ModelRegistry, found: Look, at: Position, approval: str) -> Look:
        """Make the change that the verdict asks for, if any; a version that may not serve any more is aborted."""
        sound = f"{at.label} at {at.share:g} % is sound: "
        if bad_among(found.checks):
            change = registry.abort(at.label, f"{found.verdict} at {at.share:g} %: {found.reason}")
            return replace(found, change=change)
        if approval and found.verdict is Verdict.WAITS:
            sound += f"approved ({approval}): "
        elif found.verdict not in (Verdict.CONTINUE, Verdict.PROMOTE):
            return found
        try:
            if found.next_percent >= 100:
                change = registry.promote(at.version, STABLE, sound + found.reason)
            else:
                change = registry.shift(at.version, found.next_label, found.next_percent, sound + found.reason)
            return replace(
                found, verdict=Verdict.PROMOTE if found.next_percent >= 100 else Verdict.CONTINUE, change=change
            )
        except ModelError as error:
            change = registry.abort(at.label, str(error))
            return replace(found, verdict=Verdict.ROLLBACK, reason=str(error), change=change)
