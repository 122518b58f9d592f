"""The ledger: every event, every run, every decision, in one transactional store.

An event is one change, known by its content and where it came from. Runs are claimed from it: all events that are ready
join one run, and each event is answered by one run that succeeds or is refused. Every step is one transaction, and can
be repeated: a process that is killed leaves a run that the next holder of the lease goes on with.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from bike_pipeline.errors import BusyError, DataError
from bike_pipeline.retraining import ledger_tables as tables
from bike_pipeline.retraining import outcomes, recorded
from bike_pipeline.retraining.events import OPEN, WAITING, Event, RecordedEvent, Run, State, digest_of
from bike_pipeline.retraining.policy import decide
from bike_pipeline.settings.retraining import PolicySettings

if TYPE_CHECKING:
    from bike_pipeline.retraining.triggers import Note

_LEASE = "lease"


class Ledger:
    """Events, runs and decisions. A StorageError, for each method, means that the database cannot be used."""

    def __init__(self, database: tables.Database, clock: Callable[[], float] = time.time) -> None:
        """Use a database; `clock` returns the POSIX time."""
        self._database, self._clock = database, clock

    # What triggers see.

    def see(self, event: Event, most_hops: int = 3) -> bool:
        """Record that a change was seen; return whether it is a new one.

        One with more hops than allowed is dead at once: runs that cause each other must end.
        """
        now = self._clock()
        with self._database.transaction() as connection:
            where = tables.events.c.identity == event.identity
            if connection.execute(sa.select(tables.events.c.identity).where(where)).first():
                seen = {"last_seen": now, "sightings": tables.events.c.sightings + 1}
                connection.execute(tables.events.update().where(where).values(seen))
                return False
            looping = event.hops > most_hops
            state = State.DEAD if looping else State.SEEN
            why = f"{event.hops} runs caused each other (retraining.policy.most_hops allows {most_hops})"
            connection.execute(
                tables.events.insert().values(
                    identity=event.identity,
                    trigger_name=event.trigger,
                    source=event.source,
                    digest=event.digest,
                    name=event.name,
                    reason=event.reason,
                    upload=event.upload,
                    hops=event.hops,
                    rows=event.rows,
                    state=state,
                    why=why if looping else "",
                    first_seen=now,
                    last_seen=now,
                    sightings=1,
                    attempts=0,
                    alone=False,
                    details={},
                )
            )
            recorded.note(connection, now, f"event {event.identity}", "", state, why if looping else event.reason)
            return True

    def record_notes(self, trigger: str, notes: Iterable[Note]) -> None:
        """Keep what a trigger says of sources, or of files in them, in place of what it said of them before."""
        now = self._clock()
        with self._database.transaction() as connection:
            recorded.record_notes(connection, now, trigger, notes)

    def marks(self, trigger: str, source: str) -> dict[str, str]:
        """Return what a trigger remembers of the files of a place: the mark of each, by the digest of its name."""
        with self._database.transaction() as connection:
            return recorded.marks(connection, digest_of(trigger, source))

    def remember(self, trigger: str, source: str, marks: Mapping[str, str], gone: Iterable[str] = ()) -> None:
        """Let a trigger remember marks of files, and forget those of others."""
        with self._database.transaction() as connection:
            recorded.remember(connection, digest_of(trigger, source), marks, gone)

    # Who works.

    def hold_lease(self, owner: str, seconds: float) -> int | None:
        """Take or renew the lease of the loop for so many seconds; return its fence, None where another one holds it.

        The fence rises each time the lease goes over: what an earlier holder still does is refused then.
        """
        now = self._clock()
        with self._database.transaction() as connection:
            lease = recorded.control(connection, _LEASE) or {"owner": "", "fence": 0, "at": 0.0, "seconds": 0.0}
            # Clocks of two machines differ a little: one that is behind must not take a lease that is alive.
            if lease["owner"] not in ("", owner) and abs(now - lease["at"]) < lease["seconds"]:
                return None
            fence = int(lease["fence"]) + int(lease["owner"] != owner)
            recorded.set_control(connection, _LEASE, {"owner": owner, "fence": fence, "at": now, "seconds": seconds})
            return fence

    def release_lease(self, owner: str) -> None:
        """Give the lease back, if this owner holds it, so that another one need not wait for its end."""
        with self._database.transaction() as connection:
            lease = recorded.control(connection, _LEASE)
            if lease is not None and lease["owner"] == owner:
                recorded.set_control(connection, _LEASE, {**lease, "owner": ""})

    def lease(self) -> Mapping[str, Any] | None:
        """Return the lease: `owner` ("" if nobody holds it), `fence`, `at`, `seconds`; None if there never was one."""
        with self._database.transaction() as connection:
            return recorded.control(connection, _LEASE)

    def pause(self, reason: str) -> None:
        """Let no run begin from now on; "" lets them begin again."""
        now = self._clock()
        with self._database.transaction() as connection:
            recorded.set_control(connection, recorded.PAUSE, {"reason": reason})
            recorded.note(connection, now, "pause", "", "paused" if reason else "resumed", reason)

    @property
    def paused(self) -> str:
        """Why no run may begin; "" if one may."""
        return str((self.control(recorded.PAUSE) or {}).get("reason", ""))

    # Runs.

    def claim(self, fence: int, policy: PolicySettings) -> Run | None:
        """Decide on every waiting event, and return the run that those which fire have joined; None if none does."""
        now = self._clock()
        with self._database.transaction() as connection:
            self._check_fence(connection, fence)
            waiting = [recorded.event_of(row) for row in connection.execute(recorded.of_states(tables.events, WAITING))]
            if not waiting:
                return None
            made = decide(waiting, outcomes.standing(connection, now), policy)
            fired = [one.identity for one in made if one.fired]
            number = None
            if fired:
                number = 1 + (connection.execute(sa.select(sa.func.max(tables.runs.c.number))).scalar() or 0)
                joined = [one for one in waiting if one.identity in fired]
                reason = "; ".join(dict.fromkeys(one.event.reason or one.event.name for one in joined))
                connection.execute(
                    tables.runs.insert().values(
                        number=number,
                        state=State.CLAIMED,
                        why="",
                        reason=reason,
                        triggers=sorted({one.event.trigger for one in joined}),
                        events=fired,
                        claimed_at=now,
                        fence=fence,
                        closed=False,
                        facts={"hops": 1 + max(one.event.hops for one in joined)},
                    )
                )
                recorded.note(connection, now, f"run {number}", "", State.CLAIMED, reason)
                for one in joined:
                    # What an earlier run kept of it may be taken back since.
                    fresh: dict[str, Any] = {"run": number, "alone": False, "details": {}}
                    recorded.move(connection, now, one, State.CLAIMED, f"joined run {number}", **fresh)
            recorded.record_decisions(connection, made, now, number)
            return recorded.run(connection, number) if number is not None else None

    def unfinished(self, fence: int) -> list[Run]:
        """Return the runs that are open, wait for a person, or have ended and were not closed, rising.

        They are worked on under this fence from now on, whoever left them.
        """
        table = tables.runs
        closing = table.c.ended_at.is_not(None) & table.c.closed.is_(False)
        query = sa.select(table).where(table.c.state.in_((*OPEN, State.JUDGED)) | closing).order_by(table.c.number)
        with self._database.transaction() as connection:
            self._check_fence(connection, fence)
            found = [recorded.run_of(row) for row in connection.execute(query)]
            for run in found:
                if run.fence != fence:
                    connection.execute(table.update().where(table.c.number == run.number).values(fence=fence))
        return [replace(run, fence=fence) for run in found]

    def advance(
        self,
        run: Run,
        state: State,
        why: str = "",
        *,
        again: Mapping[str, bool] | None = None,
        attempts: int | None = None,
        **facts: Any,
    ) -> Run:
        """Let a run, and the events that are in it still, come to a state; `facts` are added to its own.

        A run that ended is not advanced again: the call returns it as it is. What an end makes of the events:
        `outcomes.advance`.

        Args:
            run: the run.
            state: what it comes to.
            why: the reason.
            again: identities of events that wait again instead, and whether each for a run of its own.
            attempts: an event whose runs failed so often is dead.
            facts: what is kept of it.

        Raises:
            BusyError: another process holds the lease.
        """
        now = self._clock()
        with self._database.transaction() as connection:
            current = self._own(connection, run)
            if current.state in OPEN or current.state is State.JUDGED:
                outcomes.advance(connection, now, current, state, why, again or {}, attempts, facts)
            return recorded.run(connection, run.number)

    def set_details(self, run: Run, identity: str, details: Mapping[str, Any]) -> None:
        """Keep details of an event of a run, such as the span it became; a BusyError as of `advance`."""
        with self._database.transaction() as connection:
            self._own(connection, run)
            where = tables.events.c.identity == identity
            connection.execute(tables.events.update().where(where).values(details=dict(details)))

    def refuse(self, run: Run, identity: str, why: str) -> None:
        """Let an event leave a run, refused; a BusyError as of `advance`."""
        now = self._clock()
        with self._database.transaction() as connection:
            self._own(connection, run)
            recorded.move(connection, now, recorded.event(connection, identity), State.REFUSED, why)

    def joined(self, run: Run) -> list[RecordedEvent]:
        """Return the events whose last run this is, the oldest first."""
        with self._database.transaction() as connection:
            return recorded.joined(connection, run.number)

    def check(self, run: Run) -> None:
        """Raise a BusyError where another process holds the lease."""
        with self._database.transaction() as connection:
            self._check_fence(connection, run.fence)

    def close(self, number: int) -> None:
        """Record that all that follows the end of a run is done."""
        with self._database.transaction() as connection:
            connection.execute(tables.runs.update().where(tables.runs.c.number == number).values(closed=True))

    # What a person does.

    def retry(self, identity: str) -> RecordedEvent:
        """Let an event that failed, was refused or is dead wait for a run again, as if it were new.

        Raises:
            DataError: there is no such event, or it has not ended so.
        """
        now = self._clock()
        with self._database.transaction() as connection:
            one = recorded.event(connection, identity)
            if one.state not in (State.FAILED, State.REFUSED, State.DEAD):
                raise DataError(
                    f"the event is {one.state}",
                    where=identity,
                    fix="only what failed, was refused or is dead is retried",
                )
            recorded.move(connection, now, one, State.SEEN, "a person asked for it again", attempts=0, failed_at=None)
            return recorded.event(connection, identity)

    def drop(self, identity: str, why: str) -> RecordedEvent:
        """Let a waiting event be dead, and take back what was ingested of it; a DataError if none such waits."""
        now = self._clock()
        with self._database.transaction() as connection:
            one = recorded.event(connection, identity)
            if one.state not in WAITING:
                raise DataError(f"the event is {one.state}", where=identity, fix="only what waits can be dropped")
            recorded.move(connection, now, one, State.DEAD, why)
            # Nobody has judged the rows that a run which failed may have ingested of it.
            outcomes.request_withdrawal(connection, one.run, why)
            return recorded.event(connection, identity)

    def set_price(self, decision: int, price: Mapping[str, Any]) -> None:
        """Keep what a decision, by its id, was worth, in place of what was kept before."""
        with self._database.transaction() as connection:
            where = tables.decisions.c.id == decision
            connection.execute(tables.decisions.update().where(where).values(price=dict(price)))

    # What is known.

    def find(self, start: str) -> RecordedEvent:
        """Return the event whose identity begins so; a DataError if there is none, or more than one."""
        with self._database.transaction() as connection:
            return recorded.event(connection, start)

    def events(self, *states: State) -> list[RecordedEvent]:
        """Return the events in some states, or all, in the order in which they were seen first."""
        with self._database.transaction() as connection:
            return [recorded.event_of(row) for row in connection.execute(recorded.of_states(tables.events, states))]

    def runs(self, *states: State) -> list[Run]:
        """Return the runs in some states, or all, rising."""
        with self._database.transaction() as connection:
            return [recorded.run_of(row) for row in connection.execute(recorded.of_states(tables.runs, states))]

    def rows(self, table: sa.Table, **where: Any) -> list[dict[str, Any]]:
        """Return rows of `transitions`, `decisions` or `checks`, in the order in which they were written."""
        order = table.c.id if "id" in table.c else table.c.at
        with self._database.transaction() as connection:
            found = connection.execute(sa.select(table).filter_by(**where).order_by(order))
            return [dict(row) for row in found.mappings()]

    def changes_of_runs(self, after: int, most: int = 100) -> list[dict[str, Any]]:
        """Return the changes of state of runs behind a transition's number, rising; at most so many."""
        table = tables.transitions
        query = sa.select(table).where(table.c.id > after, table.c.subject.startswith("run ")).order_by(table.c.id)
        with self._database.transaction() as connection:
            return [dict(row) for row in connection.execute(query.limit(most)).mappings()]

    def newest_change(self) -> int:
        """Return the number of the newest transition; 0 before the first."""
        with self._database.transaction() as connection:
            return connection.execute(sa.select(sa.func.max(tables.transitions.c.id))).scalar() or 0

    def control(self, name: str) -> Mapping[str, Any] | None:
        """Return what a part of the loop keeps under a name; None if it keeps nothing."""
        with self._database.transaction() as connection:
            return recorded.control(connection, name)

    def set_control(self, name: str, content: Mapping[str, Any]) -> None:
        """Keep something under a name."""
        with self._database.transaction() as connection:
            recorded.set_control(connection, name, content)

    # Within a transaction.

    def _check_fence(self, connection: sa.Connection, fence: int) -> None:
        lease = recorded.control(connection, _LEASE)
        if lease is None or lease["fence"] != fence:
            raise BusyError(
                "another process has taken over the lease of the loop",
                where=self._database.where,
                fix="let it work; it goes on with what was open",
            )

    def _own(self, connection: sa.Connection, run: Run) -> Run:
        self._check_fence(connection, run.fence)
        return recorded.run(connection, run.number)
