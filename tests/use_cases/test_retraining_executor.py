"""What the loop takes back of the span store: what its own uploads made, and never what a pushed model learnt from."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from bike_pipeline.data.embedded_dataset import split_demo
from bike_pipeline.data.spans import SpanStore
from bike_pipeline.errors import BusyError
from bike_pipeline.retraining.events import Event, RecordedEvent
from bike_pipeline.settings import Settings, load_settings
from bike_pipeline.use_cases.retraining import open_ledger
from bike_pipeline.use_cases.retraining_executor import PipelineExecutor, uploads_of
from tests.lineage.world import FIRST, Runs


def seen(settings: Settings, folder: Path, source: str) -> RecordedEvent:
    """Let the ledger see an upload of the first half."""
    with split_demo(folder / "demo")[0].open("rb") as stream:
        made = uploads_of(settings).store(
            stream, "a.csv", 10**8, lambda sha, path: Event("storage", source, sha, "a.csv", "", path)
        )
    ledger = open_ledger(settings)
    ledger.see(made)
    return ledger.find(made.identity)


@pytest.fixture
def world(tmp_path: Path) -> Runs:
    """Both halves are in the store; the model of the first one alone was pushed."""
    made = Runs(tmp_path / "workspace")
    made.run("run-1", (1,), FIRST)
    return made


def test_what_a_pushed_model_was_trained_on_stays(world: Runs) -> None:
    executor, store = PipelineExecutor(world.settings), SpanStore(world.settings.store_uri)
    for span in (1, 2):
        executor.withdraw(span, 1, "the gate says no")
    assert store.spans() == [1]
    record = store.withdrawal(2, 1)
    assert record is not None
    assert record.reason == "the gate says no"


def test_of_an_upload_what_it_made_is_known_without_any_note_and_what_was_there_is_not_its_own(tmp_path: Path) -> None:
    settings = load_settings(assignments=(f"workspace={tmp_path / 'workspace'}",))
    ledger, executor = open_ledger(settings), PipelineExecutor(settings)
    events = []
    for source in ("first place", "second place"):
        with split_demo(tmp_path / "demo")[0].open("rb") as stream:
            made = uploads_of(settings).store(
                stream,
                "a.csv",
                10**8,
                lambda sha, path, source=source: Event("storage", source, sha, "a.csv", "", path),
            )
        ledger.see(made)
        events.append(ledger.find(made.identity))
    assert [executor.ingest(event, lambda: None)["version"] for event in events] == [1, 1]
    assert executor.ingested_versions(events[:1]) == [(1, 1)]
    assert executor.ingested_versions(events[1:]) == []


def test_weeks_go_on_with_the_newest_span_so_that_the_gate_judges_each_and_half_a_year_is_one_of_its_own(
    tmp_path: Path,
) -> None:
    settings = load_settings(assignments=(f"workspace={tmp_path / 'workspace'}",))
    ledger, executor, store = open_ledger(settings), PipelineExecutor(settings), SpanStore(settings.store_uri)
    first, second = (path.read_bytes().splitlines(keepends=True) for path in split_demo(tmp_path / "demo"))
    weeks = [second[1 + 168 * week : 169 + 168 * week] for week in range(3)]
    made = []
    for number, rows in enumerate([first[1:], *weeks, second[505:]]):
        content, name = io.BytesIO(first[0] + b"".join(rows)), f"{number}.csv"
        kept = uploads_of(settings).store(
            content, name, 10**8, lambda sha, path, name=name: Event("storage", "there", sha, name, "", path)
        )
        ledger.see(kept)
        made.append(executor.ingest(ledger.find(kept.identity), lambda: None))
    assert [(one["span"], one["version"]) for one in made] == [(1, 1), (1, 2), (1, 3), (1, 4), (2, 1)]
    assert [one["rows"] for one in made[:4]] == [8_645, 8_813, 8_981, 9_149]
    assert store.latest(1).manifest.rows.total == 9_149


def test_a_process_that_lost_its_lease_writes_nothing_into_the_store(tmp_path: Path) -> None:
    settings = load_settings(assignments=(f"workspace={tmp_path / 'workspace'}",))
    ledger, made = open_ledger(settings), seen(settings, tmp_path, "there")
    run = ledger.claim(ledger.hold_lease("one", 0.0) or 0, settings.retraining.policy)
    assert run is not None
    ledger.hold_lease("another", 30.0)
    with pytest.raises(BusyError, match="taken over"):
        PipelineExecutor(settings).ingest(made, lambda: ledger.check(run))
    assert SpanStore(settings.store_uri).spans() == []
