"""Which waiting events get a run now, and why the others do not: one function without state, for loop and simulation.

Times are compared as what has elapsed since. A clock that was set back makes that negative: then it counts as elapsed,
so that nothing waits for ever; what must happen once only is kept by the ledger's transactions, not by clocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bike_pipeline.retraining.events import MANUAL, RecordedEvent, State
from bike_pipeline.settings.retraining import PolicySettings

_DAY = 86_400.0
_ALONE = "waits for a run of its own, since it was refused with others: until what is older is judged"


@dataclass(frozen=True)
class Standing:
    """What the ledger knows at the moment of a decision.

    Attributes:
        now: POSIX time.
        paused: why nothing may begin; "" if it may.
        open_run: number of the run that is under way; None if none is.
        claims: when the runs of the last day were claimed, POSIX times, rising.
        last_of: when the last run of each trigger was claimed.
    """

    now: float
    paused: str = ""
    open_run: int | None = None
    claims: Sequence[float] = ()
    last_of: dict[str, float] | None = None


@dataclass(frozen=True)
class Decision:
    """Whether an event gets a run now, and why."""

    identity: str
    fired: bool
    reason: str


def elapsed(since: float | None, now: float) -> float:
    """Return the seconds since a time; infinity if there was none, or if the clock was set back since."""
    return math.inf if since is None or since > now else now - since


def back_off(attempts: int, policy: PolicySettings) -> float:
    """Return for how many seconds an event waits that has failed so often."""
    return min(policy.backoff_seconds * 2.0 ** max(attempts - 1, 0), policy.max_backoff_seconds)


def decide(waiting: Sequence[RecordedEvent], standing: Standing, policy: PolicySettings) -> list[Decision]:
    """Return a decision on each waiting event; all that fire join one run.

    What a person asked for waits for an open run and a pause alone. Few new rows are not worth a run of their own: they
    wait for more of them, and join a run that takes place anyway.
    """
    ready = {one.identity: _ready(one, standing, policy) for one in waiting}
    few = _too_few([one for one in waiting if not ready[one.identity]], policy)
    ready |= dict.fromkeys(
        few,
        f"{sum(few.values()):,} new rows wait; for a run of their own "
        f"retraining.policy.least_new_rows asks for {policy.least_new_rows:,}",
    )
    chosen = _chosen(waiting, [one for one in waiting if not ready[one.identity]])
    found = []
    for one in waiting:
        fired = one.identity in chosen
        reason = one.event.reason if fired else ready[one.identity] or _ALONE
        found.append(Decision(one.identity, fired, reason))
    return found


def _too_few(ready: Sequence[RecordedEvent], policy: PolicySettings) -> dict[str, int]:
    """Return the rows of each event, if all that is ready are rows and these are too few; else nothing.

    An event that goes alone or failed was worth a run before; one whose rows nobody counted may be worth one.
    """
    worth = (one.alone or one.state is State.FAILED or one.event.trigger == MANUAL for one in ready)
    if any(worth) or not all(one.event.rows for one in ready):
        return {}
    rows = {one.identity: one.event.rows for one in ready}
    return rows if sum(rows.values()) < policy.least_new_rows else {}


def _chosen(waiting: Sequence[RecordedEvent], ready: Sequence[RecordedEvent]) -> set[str]:
    """Return the identities of those that join the next run, of the ones that are ready in the order of their age.

    What failed may have left its rows in the store, where any run reads them: it joins every run, and until it is
    judged none has a run of its own.
    """
    failed = (one for one in waiting if one.event.upload and not one.alone)
    left = {one.identity for one in failed if one.state is State.FAILED or one.details}
    open_to = [one for one in ready if not one.alone or not left]
    if not open_to:
        return set()
    if open_to[0].alone:
        return {open_to[0].identity}
    return left | {one.identity for one in open_to if not one.alone}


def _ready(one: RecordedEvent, standing: Standing, policy: PolicySettings) -> str:
    """Return why an event has to wait; "" if it has not."""
    now, event = standing.now, one.event
    if standing.open_run is not None:
        return f"run {standing.open_run} is under way; this joins the next one"
    if standing.paused:
        return f"paused: {standing.paused}"
    if one.state is State.FAILED and elapsed(one.failed_at, now) < (wait := back_off(one.attempts, policy)):
        return f"failed {one.attempts} times; tried again after {wait:g} seconds"
    if event.trigger == MANUAL:
        return ""
    if elapsed(one.last_seen, now) < policy.debounce_seconds:
        return f"debounced: another change may follow within {policy.debounce_seconds:g} seconds"
    cool_down = policy.cool_down_seconds.get(event.trigger, 0.0)
    if elapsed((standing.last_of or {}).get(event.trigger), now) < cool_down:
        return f"cools down: a run of this trigger began less than {cool_down:g} seconds ago"
    today = [at for at in standing.claims if elapsed(at, now) < _DAY]
    if len(today) >= policy.runs_per_day:
        return f"{len(today)} runs began within a day; retraining.policy.runs_per_day allows {policy.runs_per_day}"
    return ""
