"""Everything goes wrong in a folder, with the real ledger and the real ingest: nothing lost, twice or mute."""

import hashlib
import json
import threading
from dataclasses import dataclass, field

import pytest

from benchmarks.hostile_folder import Hostile
from bike_pipeline.retraining import ledger_tables as tables
from bike_pipeline.retraining.events import State
from bike_pipeline.retraining.ledger import Ledger
from bike_pipeline.retraining.loop import Judged, Loop
from bike_pipeline.retraining.triggers.storage import Storage
from bike_pipeline.retraining.watched_folders import Entry
from bike_pipeline.settings import load_settings
from bike_pipeline.use_cases.retraining import PipelineExecutor
from tests.privileges import modes_count

ROUNDS = 2


@dataclass
class WithoutTraining(PipelineExecutor):
    """Ingests as the product does; what follows of that is made up."""

    settings: object
    served: list[int] = field(default_factory=list)
    ingested: list[str] = field(default_factory=list)

    def __post_init__(self):
        super().__init__(self.settings)

    def ingest(self, event, still):
        self.ingested.append(event.identity)
        return super().ingest(event, still)

    def train(self, run, trained):
        trained()
        return Judged(f"run-{run.number}", run.number)

    def promote(self, run, version):
        self.served.append(version)
        return ""


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "uploads"
    made.mkdir()
    return made


def test_nothing_is_lost_nothing_comes_twice_and_each_thing_has_an_event_or_a_reason(folder, tmp_path):
    values = (
        f"workspace={tmp_path / 'workspace'}",
        f"retraining.storage.sources={json.dumps([str(folder)])}",
        "retraining.storage.settle_seconds=0.05",
        "retraining.storage.most_megabytes=100",
        "retraining.policy.runs_per_day=1000",
        "retraining.policy.least_new_rows=0",
    )
    settings, hostile = load_settings(None, values), Hostile(folder)
    database, pause = tables.of_file(tmp_path / "ledger.sqlite"), threading.Event()

    def started(owner):
        # A process of its own, as far as what it remembers goes.
        ledger = Ledger(database)
        executor = WithoutTraining(settings)
        return ledger, executor, Loop(ledger, executor, [Storage(settings, ledger)], settings.retraining, owner)

    executors = []
    with modes_count():
        for number in range(ROUNDS):
            ledger, executor, loop = started(f"process {number}")
            executors.append(executor)
            later = hostile.drop(number)
            loop.poll()
            for change in later:
                change()
                loop.poll()
            # What had not settled yet is taken when it has.
            for _ in range(4):
                pause.wait(0.06)
                loop.poll()
            while loop.work() is not None:
                pass
            loop.release()

    events = ledger.events()
    assert {one.state for one in events} <= {State.PROMOTED, State.REFUSED}
    digests = [one.event.digest for one in events]
    assert len(digests) == len(set(digests))
    assert {hashlib.sha256(content).hexdigest() for content in hostile.whole} <= set(digests)
    ingested = [identity for one in executors for identity in one.ingested]
    assert sorted(ingested) == sorted(one.identity for one in events)
    assert any(one.state is State.PROMOTED for one in events)

    notes = {row["name"]: row["note"] for row in ledger.rows(tables.checks)}
    spoken = set(notes) | {one.event.name for one in events}
    mute = [name for name in hostile.named if Entry(name, "", 0, "").shown not in spoken]
    assert mute == []
    for name, reason in (
        ("link", "symbolic link"), ("enormous", "most_megabytes"), ("empty", "it is empty"), ("folder", "is a folder"),
        ("pipe", "never opened"), ("unreadable", "permission denied"),
    ):  # fmt: skip
        assert reason in notes[f"{name}-0000.csv"]
    whys = {one.event.name: one.why for one in events}
    for name, reason in (
        ("wrong-0000.csv", "column"), ("bomb-0000.csv.gz", "unpacks to more than"), ("latin-0000.csv", "not UTF-8"),
        ("nulls-0000.csv", "binary data"), ("header-0000.csv", "header and no rows"), ("doubled-0000.csv", "column"),
    ):  # fmt: skip
        assert reason in whys[name]
    kept = {path.parent.name for path in settings.retraining_path.glob("uploads/*/*")}
    assert kept == {one.identity for one in events if one.state is State.REFUSED}
