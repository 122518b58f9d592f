"""A metadata file that is deleted, emptied or partly overwritten is told, whatever SQLite itself would say."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from bike_pipeline.errors import MetadataError, StorageError
from bike_pipeline.lineage.records.last_run import last_run, record_last_run, refuse_a_lost_store
from bike_pipeline.lineage.store.connection import open_at
from bike_pipeline.run_events import RunObserver
from bike_pipeline.runners.pipeline_run import run_pipeline
from bike_pipeline.settings import Settings, load_settings
from bike_pipeline.use_cases.lineage import lineage_of
from tests.recording import Recorder
from tests.rollout.making import push

PAGE = 4096


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A store with texts that are longer than a page."""
    recorder = Recorder(tmp_path / "metadata.sqlite")
    for number in range(12):
        recorder.artifact("Model", f"/models/{number}", record=f"{number} " * 4000, short="x", count=number)
        recorder.execution("Trainer", f"run-{number}", settings=f"{number} " * 900)
    return tmp_path / "metadata.sqlite"


def content(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as connection:
        return list(connection.iterdump())


@pytest.mark.parametrize("size", [PAGE, 512], ids=["pages", "sectors"])
def test_zeros_in_the_file_are_told_or_change_nothing(file: Path, size: int) -> None:
    whole, before = file.read_bytes(), content(file)
    told = 0
    places = range(0, len(whole), size if size == PAGE else size * 7)
    for place in places:
        file.write_bytes(whole[:place] + bytes(size) + whole[place + size :])
        try:
            open_at(f"sqlite://{file}")
        except MetadataError:
            told += 1
        else:
            assert content(file) == before, f"byte {place}"
    assert told > len(places) / 3
    file.write_bytes(whole)
    open_at(f"sqlite://{file}")


def settings_of(workspace: Path) -> Settings:
    return load_settings(assignments=(f"workspace={workspace}",))


class Nobody(RunObserver):
    """An observer whom nothing may be told."""

    def loading(self) -> None:
        """A run that is refused loads nothing."""
        raise AssertionError


@pytest.mark.parametrize("trace", ["a run", "a push"])
@pytest.mark.parametrize("how", ["gone", "empty"])
def test_a_store_that_is_lost_is_told_by_every_command_and_a_run(tmp_path: Path, trace: str, how: str) -> None:
    settings = settings_of(tmp_path)
    if trace == "a run":
        record_last_run(tmp_path, "20260101T000000-aaaaaa")
    else:
        push(Path(settings.serving_path), 1_790_000_000)
    if how == "empty":
        settings.metadata_file.touch()
    said = {"a run": "run 20260101T000000-aaaaaa took place here", "a push": "version 1790000000 was pushed from here"}
    for act in (
        lambda: lineage_of(settings),
        lambda: run_pipeline(settings, Nobody(), lambda: None, at_once=1),
    ):
        with pytest.raises(MetadataError) as error:
            act()
        assert f"the metadata store is {how}, although {said[trace]}" in str(error.value)
        assert "--accept-baseline-reset" in error.value.fix
    assert not settings.metadata_file.exists() or not settings.metadata_file.stat().st_size
    refuse_a_lost_store(settings, accepted=True)


def test_a_new_workspace_has_lost_nothing(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    refuse_a_lost_store(settings)
    # What is served for a scratch run was not pushed from there.
    push(Path(settings.serving_path), 1_790_000_000)
    record = Path(settings.serving_path, "1790000000", "push.json")
    record.write_text(json.dumps({**json.loads(record.read_text()), "model_id": -1}))
    refuse_a_lost_store(settings)
    with pytest.raises(MetadataError, match=r"there is no metadata store.*bike-pipeline run"):
        lineage_of(settings)


def test_an_empty_file_of_nobody_is_told_as_empty(tmp_path: Path) -> None:
    (tmp_path / "metadata.sqlite").touch()
    with pytest.raises(MetadataError, match="the metadata store is empty"):
        open_at(f"sqlite://{tmp_path}/metadata.sqlite")


def test_a_store_elsewhere_or_on_a_server_is_not_missed_in_the_workspace(tmp_path: Path) -> None:
    record_last_run(tmp_path, "20260101T000000-aaaaaa")
    for named in (f"metadata.sqlite_file={tmp_path}/own.sqlite", "metadata.mysql={host: db.example}"):
        refuse_a_lost_store(load_settings(assignments=(f"workspace={tmp_path}", named)))


def test_a_run_is_noted_and_found(tmp_path: Path) -> None:
    assert last_run(tmp_path) == ""
    record_last_run(tmp_path, "2026-11-28T12-00-00-abc")
    assert last_run(tmp_path) == "2026-11-28T12-00-00-abc"


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"cannot write it.*file"):
        record_last_run(tmp_path / "file", "next")


def test_a_damaged_note_names_no_run_and_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / "last-run").write_bytes(b"\xff\xfe\x00run")
    assert last_run(tmp_path) == ""
    record_last_run(tmp_path, "next")
    assert last_run(tmp_path) == "next"
