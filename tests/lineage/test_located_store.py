"""A workspace that was moved or copied: its records are found, and those of earlier releases too."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import pytest
from ml_metadata.proto import metadata_store_pb2 as pb

from bike_pipeline.lineage.store.connection import open_at
from bike_pipeline.lineage.store.located_store import LocatedStore, Places
from bike_pipeline.lineage.store.metadata_store import Lineage, prop
from tests.lineage.world import SECOND, Runs
from tests.recording import Recorder


def opened(workspace: Path) -> LocatedStore:
    store = open_at(f"sqlite://{workspace}/metadata.sqlite", create=True)
    assert isinstance(store, LocatedStore)
    return store


def recorded(workspace: Path) -> Recorder:
    """Return a recorder that writes as the product does."""
    recorder = Recorder(workspace / "metadata.sqlite")
    recorder.store = opened(workspace)
    return recorder


def on_disk(workspace: Path) -> list[str]:
    """Return every path in the file itself."""
    with sqlite3.connect(workspace / "metadata.sqlite") as connection:
        uris = [row[0] for row in connection.execute("SELECT uri FROM Artifact")]
        for table in ("ArtifactProperty", "ExecutionProperty"):
            uris += [row[0] for row in connection.execute(f"SELECT string_value FROM {table}") if row[0]]
    return uris


@pytest.mark.parametrize("name", ["moved", "with a blank", "[brackets]", "grün", 'a "quote"'])
@pytest.mark.parametrize("how", ["mv", "cp -r"])
def test_what_is_on_record_moves_with_the_workspace(tmp_path: Path, name: str, how: str) -> None:
    old, new = tmp_path / "workspace", tmp_path / name
    (old / "artifacts" / "Trainer" / "model" / "7").mkdir(parents=True)
    recorder = recorded(old)
    model = recorder.model("run", str(old / "artifacts" / "Trainer" / "model" / "7"))
    baseline = json.dumps({"destination": f"{old}/serving/bike_demand/7", "elsewhere": "/elsewhere/7"})
    recorder.push("run", model, 7, f"{old}/serving/bike_demand/7", said=baseline)
    assert not [text for text in on_disk(old) if str(old) in text]
    (shutil.move if how == "mv" else shutil.copytree)(str(old), str(new))
    lineage = Lineage(opened(new))
    assert lineage.artifact(model.id).uri == f"{new}/artifacts/Trainer/model/7"
    (push,) = lineage.pushes()
    assert (push.destination, push.model_uri) == (f"{new}/serving/bike_demand/7", lineage.artifact(model.id).uri)
    (pushed,) = lineage.artifacts("PushedModel")
    assert json.loads(prop(pushed, "said")) == {
        "destination": f"{new}/serving/bike_demand/7",
        "elsewhere": "/elsewhere/7",
    }
    found = lineage.artifact_at(f"{new}/artifacts/Trainer/model/7")
    assert found is not None
    assert found.id == model.id
    # The one that was copied is as it was.
    if how == "cp -r":
        assert Lineage(opened(old)).pushes()[0].destination == f"{old}/serving/bike_demand/7"


def test_whole_paths_of_an_earlier_release_are_understood(tmp_path: Path) -> None:
    runs = Runs(tmp_path / "before").two()
    assert any(str(tmp_path / "before") in text for text in on_disk(tmp_path / "before"))
    after = tmp_path / "after"
    shutil.move(runs.workspace, after)
    lineage = Lineage(opened(after))
    serving = lineage.serving_model(f"{after}/serving/bike_demand")
    assert serving is not None
    assert serving.version == SECOND
    models = [lineage.artifact(model.id) for model in runs.models]
    assert all(Path(model.uri, "payload").is_file() for model in models)
    assert lineage.artifact_at(models[0].uri) == models[0]
    # What is written again is written short, and what was not goes on being understood.
    lineage.store.put_artifacts(models[:1])
    shutil.move(after, tmp_path / "at last")
    again = Lineage(opened(tmp_path / "at last"))
    assert all(Path(again.artifact(model.id).uri, "payload").is_file() for model in models)


def test_another_workspaces_records_in_the_same_file_keep_their_places(tmp_path: Path) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    own.mkdir()
    recorder = recorded(own)
    (other / "artifacts" / "Trainer" / "model" / "1").mkdir(parents=True)
    theirs = recorder.artifact("Model", str(other / "artifacts" / "Trainer" / "model" / "1"))
    shutil.move(own, tmp_path / "moved")
    assert opened(tmp_path / "moved").get_artifacts_by_id([theirs.id])[0].uri == theirs.uri


def test_a_folder_whose_name_another_one_begins_with_is_another_one() -> None:
    places = Places(Path("/data/ws"), before=("/old/ws",))
    for text in ("/data/ws2/artifacts", "/x/data/ws/artifacts", "/data/ws", "bike-/data/ws/a"):
        assert places.shorten(text) == text
    assert places.shorten("/data/ws/a and /data/ws/b") == "workspace:/a and workspace:/b"
    assert places.lengthen("/old/ws/a, workspace:/b, /an/old/ws/c") == "/data/ws/a, /data/ws/b, /an/old/ws/c"


def test_what_is_hashed_comes_back_as_it_was(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    recorder = recorded(workspace)
    evidence = json.dumps({"settings": {"key": f"{workspace}/keys/own.pem"}})
    pushed = recorder.artifact("PushedModel", evidence=evidence)
    shutil.move(workspace, tmp_path / "moved")
    (found,) = opened(tmp_path / "moved").get_artifacts_by_id([pushed.id])
    assert prop(found, "evidence") == evidence
    assert isinstance(found, pb.Artifact)
