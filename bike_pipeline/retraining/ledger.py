"""The ledger: every event, every run, every decision, in one transactional store.

An event is one change, known by its content and where it came from. Runs are claimed from it: all events that are ready
join one run, and each event is answered by one run that succeeds or is refused. Every step is one transaction, and can
be repeated: a process that is killed leaves a run that the next holder of the lease goes on with.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from bike_pipeline.errors import BusyError, DataError
from bike_pipeline.retraining import ledger_tables as tables
from bike_pipeline.retraining import recorded
from bike_pipeline.retraining.events import OPEN, WAITING, Event, RecordedEvent, Run, State, digest_of
from bike_pipeline.retraining.policy import Standing, decide, elapsed
from bike_pipeline.settings.retraining import PolicySettings

if TYPE_CHECKING:
    from bike_pipeline.retraining.triggers import Note

_LEASE, _PAUSE = "lease", "pause"
_DAY = 86_400.0


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

    def checked(self, trigger: str, notes: Iterable[Note]) -> None:
        """Keep what a trigger says of sources, or of files in them, in place of what it said of them before."""
        now = self._clock()
        with self._database.transaction() as connection:
            recorded.keep_notes(connection, now, trigger, notes)

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
            if lease["owner"] not in ("", owner) and elapsed(lease["at"], now) < lease["seconds"]:
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
            recorded.set_control(connection, _PAUSE, {"reason": reason})
            recorded.note(connection, now, "pause", "", "paused" if reason else "resumed", reason)

    @property
    def paused(self) -> str:
        """Why no run may begin; "" if one may."""
        return str((self.control(_PAUSE) or {}).get("reason", ""))

    # Runs.

    def claim(self, fence: int, policy: PolicySettings) -> Run | None:
        """Decide on every waiting event, and return the run that those which fire have joined; None if none does."""
        now = self._clock()
        with self._database.transaction() as connection:
            self._check_fence(connection, fence)
            waiting = [recorded.event_of(row) for row in connection.execute(recorded.of_states(tables.events, WAITING))]
            if not waiting:
                return None
            made = decide(waiting, self._standing(connection, now), policy)
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
                    recorded.move(connection, now, one, State.CLAIMED, f"joined run {number}", run=number, alone=False)
            recorded.keep_decisions(connection, made, now, number)
            return recorded.run(connection, number) if number is not None else None

    def adopt(self, fence: int) -> Run | None:
        """Return the run that a holder of the lease has left open, from now on under this fence; None without one."""
        with self._database.transaction() as connection:
            self._check_fence(connection, fence)
            row = connection.execute(recorded.of_states(tables.runs, OPEN)).first()
            if row is None:
                return None
            connection.execute(tables.runs.update().where(tables.runs.c.number == row.number).values(fence=fence))
            return recorded.run(connection, row.number)

    def advance(self, run: Run, state: State, why: str = "", **facts: Any) -> Run:
        """Let a run, and the events that are in it still, come to a state; `facts` are added to its own.

        A run that ended is not advanced again: the call returns it as it is. FAILED counts as one attempt of each of
        its events, which are dead when `attempts` (a fact) is reached.

        Raises:
            BusyError: another process holds the lease.
        """
        now = self._clock()
        most = facts.pop("attempts", None)
        with self._database.transaction() as connection:
            current = self._own(connection, run)
            if current.state not in (*OPEN, State.JUDGED):
                return current
            ended = state not in (*OPEN, State.JUDGED)
            connection.execute(
                tables.runs.update()
                .where(tables.runs.c.number == run.number)
                .values(state=state, why=why, facts={**current.facts, **facts}, ended_at=now if ended else None)
            )
            if state is not current.state:
                recorded.note(connection, now, f"run {run.number}", current.state, state, why)
            for one in recorded.joined(connection, run.number):
                if one.state in (*OPEN, State.JUDGED):
                    self._follow(connection, one, state, why, now, most)
            return recorded.run(connection, run.number)

    def settle(
        self,
        run: Run,
        identity: str,
        state: State | None = None,
        why: str = "",
        *,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep details of an event of a run, such as the span it became; with a state, it leaves the run with that.

        SEEN lets it wait again, for a run of its own: it was refused together with others.
        """
        now = self._clock()
        with self._database.transaction() as connection:
            self._own(connection, run)
            one = recorded.event(connection, identity)
            more = {} if details is None else {"details": dict(details)}
            if state is None:
                connection.execute(tables.events.update().where(tables.events.c.identity == identity).values(more))
            else:
                recorded.move(connection, now, one, state, why, alone=state is State.SEEN, **more)

    def unclosed(self) -> list[Run]:
        """Return the runs that have ended and were not closed: whoever ended them died behind that."""
        ended = tables.runs.c.ended_at.is_not(None) & tables.runs.c.closed.is_(False)
        with self._database.transaction() as connection:
            return [recorded.run_of(row) for row in connection.execute(sa.select(tables.runs).where(ended))]

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
        """Let a waiting event be dead; a DataError if there is none, or if it does not wait."""
        now = self._clock()
        with self._database.transaction() as connection:
            one = recorded.event(connection, identity)
            if one.state not in WAITING:
                raise DataError(f"the event is {one.state}", where=identity, fix="only what waits can be dropped")
            recorded.move(connection, now, one, State.DEAD, why)
            return recorded.event(connection, identity)

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

    def _standing(self, connection: sa.Connection, now: float) -> Standing:
        open_run = connection.execute(recorded.of_states(tables.runs, OPEN)).first()
        recent = connection.execute(sa.select(tables.runs).order_by(tables.runs.c.number.desc()).limit(1000)).all()
        last_of: dict[str, float] = {}
        for row in reversed(recent):
            last_of |= dict.fromkeys(row.triggers, row.claimed_at)
        paused = str((recorded.control(connection, _PAUSE) or {}).get("reason", ""))
        claims = sorted(row.claimed_at for row in recent if elapsed(row.claimed_at, now) < _DAY)
        return Standing(now, paused, open_run.number if open_run else None, claims, last_of)

    def _follow(
        self, connection: sa.Connection, one: RecordedEvent, state: State, why: str, now: float, most: int | None
    ) -> None:
        if state is not State.FAILED:
            recorded.move(connection, now, one, state, why)
            return
        attempts = one.attempts + 1
        ended = State.DEAD if most is not None and attempts >= most else State.FAILED
        recorded.move(connection, now, one, ended, why, attempts=attempts, failed_at=now)
