"""What a run, and its end, make of the ledger's rows within a transaction; and what it decides on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from bike_pipeline.retraining import ledger_tables as tables
from bike_pipeline.retraining import recorded
from bike_pipeline.retraining.events import OPEN, RecordedEvent, Run, State
from bike_pipeline.retraining.policy import Standing, elapsed

_DAY = 86_400.0
# Facts of a run that has ended: the versions of spans that its events made, and why they are to be withdrawn before it
# is closed.
INGESTED_VERSIONS, WITHDRAWAL = "ingested_versions", "withdrawal"


def advance(
    connection: sa.Connection,
    now: float,
    run: Run,
    state: State,
    why: str,
    again: Mapping[str, bool],
    attempts: int | None,
    facts: Mapping[str, Any],
) -> None:
    """Let a run and the events in it come to a state; see `Ledger.advance`.

    FAILED counts as one attempt of each event. Rows that nobody has judged must not stay where every later run reads
    them: a run that ends before it has trained leaves none, unless all of its events are tried again. A run that is
    promoted supersedes the earlier ones that wait for a person.
    """
    ended = state not in (*OPEN, State.JUDGED)
    values = {"state": state, "why": why, "facts": {**run.facts, **facts}, "ended_at": now if ended else None}
    connection.execute(tables.runs.update().where(tables.runs.c.number == run.number).values(values))
    if state is not run.state:
        recorded.note(connection, now, f"run {run.number}", run.state, state, why)
    given_up = state is State.REFUSED
    for one in recorded.joined(connection, run.number):
        if one.identity in again:
            recorded.move(connection, now, one, State.SEEN, f"refused with others: {why}", alone=again[one.identity])
        elif one.state in OPEN or one.state is State.JUDGED:
            given_up |= _follow(connection, now, one, state, why, attempts) is State.DEAD
    if given_up and run.state in (State.CLAIMED, State.INGESTED):
        request_withdrawal(connection, run.number, why)
    if state is State.PROMOTED:
        for row in connection.execute(recorded.of_states(tables.runs, (State.JUDGED,))).all():
            if row.number < run.number:
                superseded = f"superseded by run {run.number}"
                advance(connection, now, recorded.run_of(row), State.REFUSED, superseded, {}, None, {})


def _follow(
    connection: sa.Connection, now: float, one: RecordedEvent, state: State, why: str, most: int | None
) -> State:
    if state is not State.FAILED:
        recorded.move(connection, now, one, state, why)
        return state
    attempts = one.attempts + 1
    ended = State.DEAD if most is not None and attempts >= most else State.FAILED
    recorded.move(connection, now, one, ended, why, attempts=attempts, failed_at=now)
    return ended


def request_withdrawal(connection: sa.Connection, number: int | None, why: str) -> None:
    """Have what a run ingested withdrawn when it is closed, which it is again; nothing without a run."""
    if number is not None:
        facts = {**recorded.run(connection, number).facts, WITHDRAWAL: why}
        where = tables.runs.c.number == number
        connection.execute(tables.runs.update().where(where).values(facts=facts, closed=False))


def standing(connection: sa.Connection, now: float) -> Standing:
    """Return what decisions depend on."""
    open_run = connection.execute(recorded.of_states(tables.runs, OPEN)).first()
    columns = (tables.runs.c.triggers, tables.runs.c.claimed_at)
    recent = connection.execute(sa.select(*columns).order_by(tables.runs.c.number.desc()).limit(1000)).all()
    last_of: dict[str, float] = {}
    for row in reversed(recent):
        last_of |= dict.fromkeys(row.triggers, row.claimed_at)
    paused = str((recorded.control(connection, recorded.PAUSE) or {}).get("reason", ""))
    claims = sorted(row.claimed_at for row in recent if elapsed(row.claimed_at, now) < _DAY)
    return Standing(now, paused, open_run.number if open_run else None, claims, last_of)
