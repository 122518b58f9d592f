"""Random plans: whatever comes in whichever order and dies wherever, each change ends once, and no row is left over.

A plan is drawn from a seed, so that one that fails is run again by its number. The ledger and the loop are the real
ones; what a run does is simulated, as strictly as the real steps (see conftest). Processes die, or stall while another
one takes over, before and behind every transaction and every step.
"""

import collections
import random
from contextlib import contextmanager

import pytest

from bike_pipeline.errors import BikePipelineError, BusyError, DataError, ModelError, StageError
from bike_pipeline.retraining import ledger_tables as tables
from bike_pipeline.retraining.events import ENDED, Event, State, digest_of
from bike_pipeline.retraining.ledger import Ledger
from bike_pipeline.retraining.ledger_tables import Database
from bike_pipeline.retraining.loop import Loop
from bike_pipeline.settings.retraining import RetrainingSettings
from tests.retraining.conftest import Clock, Executor

PLANS, CHUNKS = 10_000, 20
ATTEMPTS = 3
SETTINGS = RetrainingSettings.model_validate(
    {"lease_seconds": 30, "policy": {"backoff_seconds": 30, "attempts": ATTEMPTS, "debounce_seconds": 1}}
)
KINDS = ("sound", "sound", "poison", "no rows", "code", "harmful")
# What failed is tried again.
SETTLED = tuple(state for state in ENDED if state is not State.FAILED)
REFUSED_KINDS = ("poison", "no rows", "harmful")


class Killed(BaseException):
    """The process is gone."""


class Points:
    """Where a process may die or stall: it does at a number of steps from now."""

    def __init__(self, draw: random.Random) -> None:
        self.draw, self.left, self.stall = draw, None, None

    def pass_(self) -> None:
        if self.left is None:
            return
        self.left -= 1
        if self.left < 0:
            self.left, stall = None, self.stall
            if stall is None:
                raise Killed
            self.stall = None
            stall()


class Dying(Database):
    points: Points | None = None

    @contextmanager
    def transaction(self):
        # A stall within a step of the ledger is one before it or behind it: both processes share one connection here.
        if self.points is not None:
            self.points.pass_()
        with super().transaction() as connection:
            yield connection
        if self.points is not None:
            self.points.pass_()

    def empty(self) -> None:
        with super().transaction() as connection:
            for table in tables.metadata.sorted_tables:
                if table is not tables.lock:
                    connection.execute(table.delete())


class DyingExecutor(Executor):
    """Each step may fail, or die before or behind what it does; harmful candidates do not pass their validation."""

    def __init__(self, points: Points, draw: random.Random) -> None:
        super().__init__()
        self.points, self.draw, self.failing, self.harmful = points, draw, 0.0, set()

    def _may_fail(self) -> None:
        if self.draw.random() < self.failing:
            raise self.draw.choice((StageError("the disk is full"), BusyError("another run"), OSError("reset")))

    def _stepped(self, step, *values):
        self.points.pass_()
        self._may_fail()
        found = step(*values)
        self.points.pass_()
        # Done, and yet it failed: a connection that broke behind it.
        if step != super().ended:
            self._may_fail()
        return found

    def ingest(self, event, still):
        return self._stepped(super().ingest, event, lambda: self._looked(still))

    def _looked(self, still):
        # From here to the end the store is locked: a process that dies or stalls holds that up for all.
        left, self.points.left = self.points.left, None
        still()
        self.points.left = left

    def train(self, run, trained):
        return self._stepped(super().train, run, trained)

    def ingested_versions(self, events):
        return super().ingested_versions(events)

    def withdraw(self, span, version, why):
        self.points.pass_()
        super().withdraw(span, version, why)
        self.points.pass_()

    def promote(self, run, version):
        if self.harmful & self.codes[run.number]:
            raise ModelError("it answers nonsense", where=str(version), fix="mend it")
        return self._stepped(super().promote, run, version)

    def ended(self, run, events):
        self.points.pass_()
        super().ended(run, events)
        self.points.pass_()


class World:
    def __init__(self, database: Dying, seed: int) -> None:
        self.draw = draw = random.Random(seed)
        self.database, self.clock = database, Clock()
        database.points = None
        database.empty()
        database.points = self.points = Points(draw)
        self.executor = DyingExecutor(self.points, draw)
        self.ledger = Ledger(database, self.clock)
        self.owners = 0
        self.loops = [self.started(), self.started()]
        self.changes = [self.change(number) for number in range(draw.randint(1, 4))]
        self.executor.codes = _Codes(self)
        self.retried, self.seen, self.dropped = set(), {}, set()
        self.executor.failing = draw.choice((0.0, 0.0, 0.05, 0.2))

    def started(self) -> Loop:
        self.owners += 1
        return Loop(self.ledger, self.executor, (), SETTINGS, f"process {self.owners}", self.clock)

    def change(self, number: int) -> tuple[str, Event]:
        kind, name = self.draw.choice(KINDS), f"change-{number}"
        brings = kind in ("sound", "poison", "no rows")
        trigger = "storage" if brings else "code"
        made = Event(trigger, "there", digest_of(name), name, f"new: {name}", f"/uploads/{name}" if brings else "")
        bad = {"poison": self.executor.poisoned, "no rows": self.executor.bad_rows, "harmful": self.executor.harmful}
        bad.get(kind, set()).add(made.digest)
        return kind, made

    def work(self, number: int) -> bool:
        """Let a process work once, and start another one in its place where it dies; return whether there was a run."""
        self.working = number
        try:
            return self.loops[number].work() is not None
        except Killed:
            self.loops[number] = self.started()
        except BusyError:
            pass
        except BikePipelineError as error:
            pytest.fail(f"the loop ended: {error}")
        return False

    def stall(self) -> None:
        """The other process takes over, while this one stands still, and may get far."""
        self.clock.now += 31
        stalled = self.working
        for _ in range(self.draw.randint(1, 3)):
            self.work(1 - stalled)
        self.working = stalled

    def act(self) -> None:
        draw = self.draw
        what = draw.choices(("see", "work", "clock", "die", "stall", "pause", "person"), (5, 6, 3, 3, 2, 1, 1))[0]
        if what == "see":
            kind, made = draw.choice(self.changes)
            copied = Event(**{**vars(made), "name": f"{made.name} ({draw.randint(1, 9)})"})
            assert self.ledger_call(self.ledger.see, copied) == (made.identity not in self.seen)
            self.seen[made.identity] = kind
        elif what == "work":
            self.work(draw.randint(0, 1))
        elif what == "clock":
            self.clock.now += draw.choice((0.5, 2, 31, 100, 90_000, -10, -100, -90_000))
        elif what == "die":
            self.points.left, self.points.stall = draw.randint(0, 30), None
        elif what == "stall":
            self.points.left, self.points.stall = draw.randint(0, 30), self.stall
        elif what == "pause":
            self.ledger_call(self.ledger.pause, draw.choice(("closed", "")))
        elif self.seen:
            identity = draw.choice(list(self.seen))
            try:
                if draw.random() < 0.7:
                    self.ledger_call(self.ledger.retry, identity)
                    self.retried.add(identity)
                    self.dropped.discard(identity)
                else:
                    self.ledger_call(self.ledger.drop, identity, "a person said so")
                    self.dropped.add(identity)
            except DataError:
                pass

    def ledger_call(self, method, *values):
        """A person's process does not die here."""
        self.database.points = None
        try:
            return method(*values)
        finally:
            self.database.points = self.points

    def drain(self) -> None:
        self.points.left, self.executor.failing = None, 0.0
        self.ledger.pause("")
        for _ in range(40):
            self.clock.now += 5000
            busy = self.work(self.draw.randint(0, 1)) or self.ledger.unfinished(self.fence())
            if not busy and all(one.state in SETTLED for one in self.ledger.events()):
                self.clock.now += 5000
                assert not self.work(0)
                return
        pytest.fail("an event is stuck")

    def fence(self) -> int:
        return (self.ledger.lease() or {"fence": self.ledger.hold_lease("nobody", 0.0)})["fence"]

    def check(self) -> None:
        events, runs = self.ledger.events(), self.ledger.runs()
        assert {one.identity for one in events} == set(self.seen)
        answered = collections.Counter(
            row["subject"].removeprefix("event ")
            for row in self.ledger.rows(tables.transitions)
            if row["after"] == State.PROMOTED and row["subject"].startswith("event ")
        )
        sound = {one.event.digest for one in events if self.seen[one.identity] == "sound"}
        harmful = self.executor.harmful
        for one in events:
            kind = self.seen[one.identity]
            if one.state is State.PROMOTED:
                assert answered[one.identity] == 1
                assert one.identity not in self.dropped
                assert self.run(one.run).state is State.PROMOTED
                if one.event.upload:
                    assert one.event.digest in self.executor.rows()
            else:
                assert answered[one.identity] == 0
                died = one.attempts >= ATTEMPTS or one.identity in self.dropped
                # A candidate that does not pass takes all with it that made it; only a person knows which it was.
                with_harmful = one.run is not None and bool(harmful & self.executor.codes[one.run])
                assert one.state is (State.DEAD if died else State.REFUSED)
                assert died or kind in REFUSED_KINDS or with_harmful, (kind, one)
            assert kind not in REFUSED_KINDS or one.state is not State.PROMOTED
        assert self.executor.rows() <= sound, "rows that were refused count still"
        assert not any(rows - sound for rows in self.executor.pushed)
        promoted = [run for run in runs if run.state is State.PROMOTED]
        assert {run.number for run in promoted} == {one.run for one in events if one.state is State.PROMOTED}
        for run in promoted:
            assert run.facts["pushed_version"] in self.executor.promoted
            needed = {one.event.digest for one in events if one.run == run.number and one.event.upload}
            refused = {one.event.digest for one in events if one.state is State.REFUSED}
            assert needed - refused <= self.executor.pushed[run.facts["pushed_version"] - 100]
        assert all(run.state in ENDED for run in runs)
        assert not self.ledger.unfinished(self.fence())
        assert {run.number for run in runs} == set(self.executor.closed)

    def run(self, number: int):
        return next(run for run in self.ledger.runs() if run.number == number)


class _Codes:
    """By a run's number, the digests of its events."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __getitem__(self, number: int) -> set[str]:
        world = self._world
        world.database.points = None
        try:
            by_identity = {made.identity: made.digest for _, made in world.changes}
            return {by_identity[identity] for identity in world.run(number).events}
        finally:
            world.database.points = world.points


def play(database: Dying, seed: int) -> World:
    world = World(database, seed)
    for _ in range(world.draw.randint(4, 12)):
        world.act()
    world.drain()
    world.check()
    return world


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_each_change_ends_once_whatever_happens(chunk):
    database = Dying("sqlite://")
    outcomes = collections.Counter()
    for seed in range(chunk * PLANS // CHUNKS, (chunk + 1) * PLANS // CHUNKS):
        try:
            world = play(database, seed)
        except BaseException as error:
            error.add_note(f"the plan of seed {seed}")
            raise
        outcomes.update(one.state for one in world.ledger.events())
    # The plans reach what they are there for.
    assert set(outcomes) == {State.PROMOTED, State.REFUSED, State.DEAD}
