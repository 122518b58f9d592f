"""The ledger's rows within a transaction: read as what they mean, and changed together with the note of the change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from bike_pipeline.errors import DataError
from bike_pipeline.retraining import ledger_tables as tables
from bike_pipeline.retraining.events import Event, RecordedEvent, Run, State, digest_of

if TYPE_CHECKING:
    from bike_pipeline.retraining.policy import Decision
    from bike_pipeline.retraining.triggers import Note

# What is true still is said again each minute; of what is gone nothing is known after a week.
_NOTED_SECONDS = 7 * 86_400.0

# Under which name the ledger keeps why no run may begin.
PAUSE = "pause"
# Built once: the loop asks them all the time.
_WHOLE = sa.select(tables.events).where(tables.events.c.identity == sa.bindparam("identity"))
_OLDEST = (tables.events.c.first_seen, tables.events.c.identity)
_JOINED = sa.select(tables.events).where(tables.events.c.run == sa.bindparam("number")).order_by(*_OLDEST)
_RUN = sa.select(tables.runs).where(tables.runs.c.number == sa.bindparam("run_number"))
_MOVE = tables.events.update().where(tables.events.c.identity == sa.bindparam("moved"))
_NOTE = tables.transitions.insert()
_FORGET = tables.control.delete().where(tables.control.c.name == sa.bindparam("control_name"))
_CONTROL = sa.select(tables.control.c.content).where(tables.control.c.name == sa.bindparam("control_name"))


def of_states(table: sa.Table, states: Sequence[State] = ()) -> sa.Select[Any]:
    """Return the query for events or runs in some states, or all, the oldest first."""
    order = _OLDEST if table is tables.events else (table.c.number,)
    query = sa.select(table).order_by(*order)
    return query.where(table.c.state.in_(states)) if states else query


def event(connection: sa.Connection, start: str) -> RecordedEvent:
    """Return the event whose identity begins so; a DataError if there is none, or more than one."""
    found = connection.execute(_WHOLE, {"identity": start}).all()
    if not found and start:
        query = sa.select(tables.events).where(tables.events.c.identity.startswith(start, autoescape=True)).limit(2)
        found = connection.execute(query).all()
    if len(found) != 1:
        what = "more than one event begins so" if found else "there is no such event"
        raise DataError(what, where=start, fix="`bike-pipeline triggers list` shows them")
    return event_of(found[0])


def joined(connection: sa.Connection, number: int) -> list[RecordedEvent]:
    """Return the events whose last run is this one, the oldest first."""
    return [event_of(row) for row in connection.execute(_JOINED, {"number": number})]


def run(connection: sa.Connection, number: int) -> Run:
    """Return a run."""
    return run_of(connection.execute(_RUN, {"run_number": number}).one())


def event_of(row: Any) -> RecordedEvent:
    """Return what a row of events holds."""
    seen = Event(row.trigger_name, row.source, row.digest, row.name, row.reason, row.upload, row.hops, row.rows)
    return RecordedEvent(
        seen,
        State(row.state),
        row.why,
        row.first_seen,
        row.last_seen,
        row.sightings,
        row.attempts,
        row.failed_at,
        row.run,
        row.alone,
        row.details,
    )


def run_of(row: Any) -> Run:
    """Return what a row of runs holds."""
    return Run(
        row.number,
        State(row.state),
        row.why,
        row.reason,
        tuple(row.events),
        row.claimed_at,
        row.ended_at,
        row.fence,
        row.facts,
    )


def move(connection: sa.Connection, now: float, one: RecordedEvent, state: State, why: str, **values: Any) -> None:
    """Let an event come to a state, and note that."""
    connection.execute(_MOVE, {"moved": one.identity, "state": state, "why": why, **values})
    if state is not one.state:
        note(connection, now, f"event {one.identity}", one.state, state, why)


def note(connection: sa.Connection, now: float, subject: str, before: str, after: str, why: str) -> None:
    """Add a transition."""
    connection.execute(_NOTE, {"at": now, "subject": subject, "before": before, "after": after, "why": why})


def record_decisions(connection: sa.Connection, made: Iterable[Decision], now: float, number: int | None) -> None:
    """Keep decisions; what fired joined a run of that number."""
    table = tables.decisions
    for one in made:
        query = sa.select(table).where(table.c.identity == one.identity).order_by(table.c.id.desc()).limit(1)
        last = connection.execute(query).first()
        if last is not None and not one.fired and last.reason == one.reason and not last.fired:
            connection.execute(table.update().where(table.c.id == last.id).values(last_at=now))
            continue
        connection.execute(
            table.insert().values(
                identity=one.identity,
                fired=one.fired,
                reason=one.reason,
                first_at=now,
                last_at=now,
                run=number if one.fired else None,
            )
        )


def record_notes(connection: sa.Connection, now: float, trigger: str, notes: Iterable[Note]) -> None:
    """Keep what a trigger says in place of what it said of the same before; nothing of what it says "" of."""
    connection.execute(tables.checks.delete().where(tables.checks.c.at < now - _NOTED_SECONDS))
    for one in notes:
        key = {"trigger_name": trigger, "source_digest": digest_of(one.source, one.name)}
        connection.execute(tables.checks.delete().filter_by(**key))
        if one.text:
            values = {"source": one.source, "name": one.name, "note": one.text, "at": now}
            connection.execute(tables.checks.insert().values(**key, **values))


def marks(connection: sa.Connection, place: str) -> dict[str, str]:
    """Return the marks of the files of a place, by the digest of their names."""
    table = tables.files
    found = connection.execute(sa.select(table.c.name, table.c.mark).where(table.c.place == place))
    return {row.name: row.mark for row in found}


def remember(connection: sa.Connection, place: str, new: Mapping[str, str], gone: Iterable[str]) -> None:
    """Keep marks of files of a place, and no longer those of others."""
    table = tables.files
    names = [{"of": name} for name in (*new, *gone)]
    if names:
        where = sa.and_(table.c.place == place, table.c.name == sa.bindparam("of"))
        connection.execute(table.delete().where(where), names)
    if new:
        connection.execute(table.insert(), [{"place": place, "name": key, "mark": mark} for key, mark in new.items()])


def control(connection: sa.Connection, name: str) -> Mapping[str, Any] | None:
    """Return what stands under a name; None if nothing does."""
    found: Mapping[str, Any] | None = connection.execute(_CONTROL, {"control_name": name}).scalar()
    return found


def set_control(connection: sa.Connection, name: str, content: Mapping[str, Any]) -> None:
    """Put something under a name."""
    connection.execute(_FORGET, {"control_name": name})
    connection.execute(tables.control.insert(), {"name": name, "content": dict(content)})
