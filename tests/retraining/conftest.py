"""A ledger in memory, a clock that is set, and an executor that only writes down what it is asked."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from bike_pipeline.errors import DataError, DataGateError
from bike_pipeline.retraining.events import Event, State, digest_of
from bike_pipeline.retraining.ledger import Ledger
from bike_pipeline.retraining.ledger_tables import Database
from bike_pipeline.retraining.loop import Judged, Loop
from bike_pipeline.settings import load_settings
from bike_pipeline.settings.retraining import RetrainingSettings


@dataclass
class Clock:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Version:
    number: int
    rows: frozenset[str]
    upload: str
    withdrawn: bool = False


@dataclass
class Executor:
    """What the real one would do to a span store, a registry and a promotion log, as strictly, in lists."""

    versions: list[Version] = field(default_factory=list)
    dropped: set[str] = field(default_factory=set)
    pushed: list[frozenset[str]] = field(default_factory=list)
    promoted: list[int] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    bad_rows: set[str] = field(default_factory=set)
    poisoned: set[str] = field(default_factory=set)
    error: Exception | None = None
    blessed: bool = True
    waits: str = ""
    aborted: dict[int, str] = field(default_factory=dict)

    def live(self) -> list[Version]:
        return [one for one in self.versions if not one.withdrawn]

    def rows(self) -> frozenset[str]:
        """The rows that a run reads: those of the newest version that counts."""
        return self.live()[-1].rows if self.live() else frozenset()

    def ingest(self, event, still) -> Mapping[str, Any]:
        self.calls.append(f"ingest {event.event.name}")
        assert event.event.upload not in self.dropped, "the upload is gone, though a run needs it"
        digest = event.event.digest
        if digest in self.bad_rows:
            raise DataError("these are no rows", where=event.event.name, fix="send rows")
        still()
        for rows in (frozenset({digest}), self.rows() | {digest}):
            for one in self.live():
                if one.rows == rows:
                    return {"span": 2, "version": one.number}
        self.versions.append(Version(len(self.versions) + 1, self.rows() | {digest}, event.event.upload))
        return {"span": 2, "version": len(self.versions)}

    def train(self, run, trained: Callable[[], None]) -> Judged:
        self.calls.append(f"train {run.number}")
        if self.error is not None:
            raise self.error
        rows = self.rows()
        if self.poisoned & rows:
            raise DataGateError("a week of the label is off", where="span 2", fix="correct it")
        trained()
        if not self.blessed:
            return Judged(f"run-{run.number}", None, "not blessed: MAE")
        if rows not in self.pushed:
            self.pushed.append(rows)
        return Judged(f"run-{run.number}", 100 + self.pushed.index(rows))

    def ingested_versions(self, events):
        uploads = {one.event.upload for one in events}
        return [(2, one.number) for one in self.live() if one.upload in uploads]

    def withdraw(self, span, version, why) -> None:
        one = self.versions[version - 1]
        if one.rows not in self.pushed:
            one.withdrawn = True

    def promote(self, run, version) -> str:
        self.calls.append(f"promote {version}")
        assert 0 <= version - 100 < len(self.pushed), "there is no such version"
        if not self.waits and version not in self.promoted:
            self.promoted.append(version)
        return self.waits

    def settled(self, version):
        if version in self.promoted:
            return State.PROMOTED, f"version {version} serves"
        return (State.REFUSED, self.aborted[version]) if version in self.aborted else None

    def ended(self, run, events) -> None:
        assert run.ended_at is not None
        self.closed.append(run.number)
        self.dropped |= {one.event.upload for one in events if one.state is State.PROMOTED}


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


@pytest.fixture
def settings_of(tmp_path):
    def made(**values):
        named = [f"retraining.{name.replace('__', '.')}={value}" for name, value in values.items()]
        return load_settings(None, (f"workspace={tmp_path / 'workspace'}", *named))

    return made


@pytest.fixture
def aged(monkeypatch):
    """Let files that were written now have been there for long."""
    now = time.time

    def age(seconds=3600.0):
        monkeypatch.setattr(time, "time", lambda: now() + seconds)

    return age
