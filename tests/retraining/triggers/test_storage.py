"""What is new in folders and buckets: taken once, whatever it is called, and with a reason where it is not."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from bike_pipeline.errors import StorageError
from bike_pipeline.retraining import ledger_tables as tables
from bike_pipeline.retraining.events import State
from bike_pipeline.retraining.notifications import Hint
from bike_pipeline.retraining.triggers.storage import RepositoryData, Storage
from tests.rollout.storages import STORAGES


def written(folder, name, content="hr,cnt\n1,2\n", at=None):
    path = folder / name
    path.write_text(content) if isinstance(content, str) else path.write_bytes(content)
    if at is not None:
        os.utime(path, (at, at))
    return path


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "rows"
    made.mkdir()
    return made


@pytest.fixture
def trigger(settings_of, ledger, folder, aged):
    aged()
    return Storage(settings_of(storage__sources=json.dumps([str(folder)])), ledger)


def said(look):
    return {note.name: note.text for note in look.notes if note.text}


def names(look):
    return [event.name for event in look.events]


def test_without_a_folder_it_says_so(settings_of, ledger):
    (note,) = Storage(settings_of(), ledger).look().notes
    assert "no folder is named" in note.text


def test_a_new_file_is_an_event_with_its_content_and_is_not_read_again(trigger, folder, make_loop, monkeypatch):
    path = written(folder, "a.csv")
    (event,) = trigger.look().events
    assert (event.trigger, event.source, event.name) == ("storage", str(folder), "a.csv")
    assert event.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert Path(event.upload).read_bytes() == path.read_bytes()
    monkeypatch.setattr(trigger, "take", lambda *_: pytest.fail("it was read again"))
    assert trigger.look().events == ()


def test_a_file_that_is_changed_is_taken_again_and_the_older_first(trigger, folder):
    written(folder, "b.csv", "b", at=1000)
    written(folder, "a.csv", "a", at=2000)
    assert names(trigger.look()) == ["b.csv", "a.csv"]
    written(folder, "b.csv", "corrected")
    assert names(trigger.look()) == ["b.csv"]


def test_the_same_content_under_two_names_is_one_event_and_the_second_name_says_so(trigger, folder, make_loop, ledger):
    loop = make_loop(triggers=[trigger])
    written(folder, "a.csv")
    assert loop.poll() == 1
    written(folder, "b.csv")
    assert loop.poll() == 0
    (row,) = [row for row in ledger.rows(tables.checks) if row["name"] == "b.csv"]
    assert "content is that of event" in row["note"]
    assert "a.csv" in row["note"]


def test_what_was_learnt_leaves_no_copy_when_it_comes_again(trigger, folder, make_loop, ledger):
    loop = make_loop(triggers=[trigger])
    written(folder, "a.csv")
    loop.poll()
    assert loop.work().state is State.PROMOTED
    written(folder, "again.csv")
    (event,) = trigger.look().events
    assert not Path(event.upload).exists()


def test_a_disk_that_is_full_half_way_loses_nothing(trigger, folder, monkeypatch):
    written(folder, "a.csv", "a", at=1000)
    written(folder, "b.csv", "b", at=2000)
    real, full = trigger.take, StorageError("cannot write it: no space left on device")

    def take(place, entry, hops):
        if entry.name == "b.csv":
            raise full
        return real(place, entry, hops)

    monkeypatch.setattr(trigger, "take", take)
    for _ in range(2):
        look = trigger.look()
        assert look.events == ()
        assert "no space left" in look.notes[0].text
    monkeypatch.setattr(trigger, "take", real)
    assert names(trigger.look()) == ["a.csv", "b.csv"]


@pytest.mark.parametrize("recorded", [False, True])
def test_a_process_that_dies_loses_nothing_and_makes_nothing_twice(
    trigger, folder, settings_of, make_loop, ledger, recorded
):
    written(folder, "a.csv")
    # Copied, and perhaps in the ledger, and not remembered.
    look = trigger.look()
    if recorded:
        ledger.see(look.events[0])
    again = Storage(settings_of(storage__sources=json.dumps([str(folder)])), ledger)
    loop = make_loop("next", triggers=[again])
    assert loop.poll() == int(not recorded)
    assert loop.work().state is State.PROMOTED
    assert len(ledger.events()) == 1


def test_a_new_process_knows_what_was_taken(trigger, folder, settings_of, ledger, monkeypatch):
    for number in range(50):
        written(folder, f"{number}.csv", str(number))
    assert len(trigger.look().events) == 50
    trigger.look()
    again = Storage(settings_of(storage__sources=json.dumps([str(folder)])), ledger)
    assert again.look().events == ()
    for path in folder.iterdir():
        path.unlink()
    again.look()
    assert ledger.marks("storage", str(folder)) == {}


def test_a_half_written_file_is_taken_when_it_has_stayed_as_it_is(folder, settings_of, ledger, monkeypatch):
    trigger = Storage(settings_of(storage__sources=json.dumps([str(folder)]), storage__settle_seconds=5), ledger)
    now = {"wall": 10_000.0, "here": 0.0}
    monkeypatch.setattr("time.time", lambda: now["wall"])
    monkeypatch.setattr("time.monotonic", lambda: now["here"])
    path = written(folder, "half.csv", "hr,cnt\n1,")
    # This machine's clock is behind that of the folder, so only what was seen counts.
    look = trigger.look()
    assert "may not be finished" in said(look)["half.csv"]
    now["here"] += 4
    with path.open("a") as file:
        file.write("2\n")
    assert trigger.look().events == ()
    now["here"] += 4
    assert trigger.look().events == ()
    now["here"] += 1
    (event,) = trigger.look().events
    assert Path(event.upload).read_text() == "hr,cnt\n1,2\n"


def test_what_changes_while_it_is_read_is_not_taken(trigger, folder, monkeypatch):
    path = written(folder, "a.csv", "first")
    real = trigger._uploads.store

    def keep(stream, *rest):
        read = stream.read

        def changing(size):
            block = read(size)
            if block:
                path.write_text("second")
                os.utime(path, (1, 1))
            return block

        stream.read = changing
        return real(stream, *rest)

    monkeypatch.setattr(trigger._uploads, "store", keep)
    look = trigger.look()
    assert look.events == ()
    assert "changed while it was read" in said(look)["a.csv"]
    monkeypatch.undo()
    os.utime(path, (1000, 1000))
    assert not list(trigger._uploads._folder.glob(".*"))


def test_the_projects_own_folder_is_a_trigger_of_its_own(folder, settings_of, ledger, aged):
    aged()
    trigger = RepositoryData(settings_of(incoming=str(folder)), ledger)
    written(folder, "a.csv")
    written(folder, ".gitkeep", "")
    look = trigger.look()
    assert [event.trigger for event in look.events] == ["repository-data"]
    assert "dot" in said(look)[".gitkeep"]
    assert "nothing is watched" in RepositoryData(settings_of(incoming=""), ledger).look().notes[0].text


@pytest.fixture(params=STORAGES)
def bucket(request, monkeypatch, tmp_path):
    with STORAGES[request.param](monkeypatch) as url:
        # The emulator of S3 keeps what other tests of this process put into the bucket.
        yield f"{url}/{tmp_path.parent.name}-{tmp_path.name}"


def put(url, content):
    import fsspec

    with fsspec.open(url, "wb") as file:
        file.write(content)


def test_objects_of_a_bucket_are_taken_once_and_listed_again_after_a_pause_or_a_hint(bucket, settings_of, ledger):
    settings = settings_of(storage__sources=json.dumps([bucket]), storage__remote_seconds=3600)
    trigger = Storage(settings, ledger)
    assert "nothing in it yet" in said(trigger.look())[""]
    put(f"{bucket}/a.csv", b"one")
    put(f"{bucket}/notes.txt", b"no rows")
    put(f"{bucket}/deeper/b.csv", b"two")
    assert trigger.look().events == ()
    assert not trigger.hint(Hint(f"{bucket}/deeper/b.csv"))
    assert trigger.hint(Hint(f"{bucket}/a.csv", 2))
    look = trigger.look()
    assert [(event.name, event.source, event.hops) for event in look.events] == [("a.csv", bucket, 2)]
    assert Path(look.events[0].upload).read_bytes() == b"one"
    assert set(said(look)) == {"", "notes.txt", "deeper"}
    trigger.look()
    again = Storage(settings, ledger)
    assert again.look().events == ()
    put(f"{bucket}/a.csv", b"another")
    assert again.hint(Hint(f"{bucket}/a.csv"))
    assert [event.digest for event in again.look().events] == [hashlib.sha256(b"another").hexdigest()]


def test_a_place_that_cannot_be_listed_is_told_and_holds_nothing_up(settings_of, ledger, folder, aged):
    aged()
    trigger = Storage(settings_of(storage__sources=json.dumps(["unknown://place", str(folder)])), ledger)
    written(folder, "a.csv")
    look = trigger.look()
    assert names(look) == ["a.csv"]
    assert "cannot look" in look.notes[0].text
