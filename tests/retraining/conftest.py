"""A ledger in memory, a clock that is set, and an executor that only writes down what it is asked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from bike_pipeline.errors import DataError, DataGateError
from bike_pipeline.retraining.events import Event, digest_of
from bike_pipeline.retraining.ledger import Ledger
from bike_pipeline.retraining.ledger_tables import Database
from bike_pipeline.retraining.loop import Judged, Loop
from bike_pipeline.settings.retraining import RetrainingSettings


@dataclass
class Clock:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Executor:
    """What the real one would do to a span store, a registry and a promotion log, as strictly, in lists."""

    store: dict[str, tuple[int, int]] = field(default_factory=dict)
    versions: int = 0
    withdrawn: list[tuple[int, int]] = field(default_factory=list)
    pushed: list[tuple[int, ...]] = field(default_factory=list)
    promoted: list[int] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    bad_rows: set[str] = field(default_factory=set)
    poisoned: set[str] = field(default_factory=set)
    error: Exception | None = None
    blessed: bool = True
    waits: str = ""

    def ingest(self, event) -> Mapping[str, Any]:
        self.calls.append(f"ingest {event.event.name}")
        if event.event.digest in self.bad_rows:
            raise DataError("these are no rows", where=event.event.name, fix="send rows")
        digest = event.event.digest
        if self.store.get(digest) in [None, *self.withdrawn]:
            self.versions += 1
            self.store[digest] = (2, self.versions)
        place = self.store[digest]
        return {"span": place[0], "version": place[1]}

    def train(self, run, trained: Callable[[], None]) -> Judged:
        self.calls.append(f"train {run.number}")
        if self.error is not None:
            raise self.error
        present = [digest for digest, place in self.store.items() if place not in self.withdrawn]
        if self.poisoned & set(present):
            raise DataGateError("a week of the label is off", where="span 2", fix="correct it")
        trained()
        window = tuple(sorted(self.store[digest][1] for digest in present))
        if not self.blessed:
            return Judged(f"run-{run.number}", None, "not blessed: MAE")
        if window not in self.pushed:
            self.pushed.append(window)
        return Judged(f"run-{run.number}", 100 + self.pushed.index(window))

    def withdraw(self, details, why) -> None:
        self.withdrawn.append((details["span"], details["version"]))

    def promote(self, run, version) -> str:
        self.calls.append(f"promote {version}")
        if not self.waits and version not in self.promoted:
            self.promoted.append(version)
        return self.waits

    def serves(self, version) -> bool:
        return version in self.promoted

    def ended(self, run, events) -> None:
        self.closed.append(run.number)


def event(name: str, trigger: str = "storage", source: str = "s3://bucket/rows", **more) -> Event:
    brings = {"upload": f"/uploads/{name}"} if trigger == "storage" else {}
    return Event(trigger, source, digest_of(name), name, f"new: {name}", **{**brings, **more})


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def ledger(clock):
    return Ledger(Database("sqlite://"), clock)


@pytest.fixture
def executor():
    return Executor()


@pytest.fixture
def make_loop(ledger, executor, clock):
    def made(owner="one", triggers=(), **policy):
        values = {"policy": {"backoff_seconds": 30, "attempts": 3, "least_new_rows": 0, **policy}, "lease_seconds": 30}
        return Loop(ledger, executor, triggers, RetrainingSettings.model_validate(values), owner, clock)

    return made
