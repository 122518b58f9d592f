"""A push is whole, once, and only of what is blessed."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ml_metadata.proto import metadata_store_pb2 as pb

from bike_pipeline.components import pusher
from bike_pipeline.errors import ExportError, StorageError
from bike_pipeline.model_registry import ModelRegistry, is_intact, layout
from tests.components.pushing import DriverConnection, World


@pytest.fixture
def world(tmp_path: Path, exported: Any) -> World:
    """A world with nothing pushed."""
    return World(tmp_path, exported.path)


def test_what_is_not_blessed_is_not_pushed(world: World) -> None:
    pushed = world.push(world.model("first"), blessed=False)
    assert pushed.get_int_custom_property("pushed") == 0
    assert not world.serving.exists()


def test_a_push_is_a_numeric_version_with_its_record(world: World) -> None:
    first = world.model("first")
    pushed = world.push(first)
    (version,) = ModelRegistry(world.serving).versions()
    assert pushed.get_string_custom_property("pushed_version") == str(version)
    record = ModelRegistry(world.serving).push_record(version)
    assert record is not None
    assert record["model_id"] == first.artifact.id
    assert record["fingerprint"] == layout.fingerprint(world.serving / str(version))
    assert [path.name for path in world.serving.iterdir() if path.name != ".lock"] == [str(version)]


def test_the_same_model_is_pushed_once(world: World) -> None:
    first = world.model("first")
    one = world.push(first, record=False)
    two = world.push(first)
    assert one.get_string_custom_property("pushed_version") == two.get_string_custom_property("pushed_version")
    assert len(ModelRegistry(world.serving).versions()) == 1


EXPORTS = Path("assets.extra") / "exports"


def destination(pushed: Any) -> Path:
    """Return where a model was pushed to."""
    return Path(pushed.get_string_custom_property("pushed_destination"))


def test_only_formats_that_passed_go_with_the_model(world: World) -> None:
    first = world.model("first")
    served = destination(world.push(first))
    there = {path.relative_to(served / EXPORTS).as_posix() for path in (served / EXPORTS).rglob("*") if path.is_file()}
    # The SavedModel is the version's folder itself.
    assert there == {"parity.json", "golden.json", "tiny/model.bin"}
    record = ModelRegistry(world.serving).push_record(int(served.name))
    assert record is not None
    assert record["exports"] == ["saved_model", "tiny"]
    assert record["exports_fingerprint"] == layout.exports_fingerprint(served)
    assert record["fingerprint"] == layout.fingerprint(Path(first.artifact.uri) / "Format-Serving")


def test_exports_that_were_only_measured_again_are_not_pushed_again(world: World) -> None:
    first = world.model("first")
    one = world.push(first)
    assert destination(world.push(first, exports=world.exports(latency_us=31.0))) == destination(one)
    more = world.push(first, exports=world.exports(another="one more"))
    changed = world.push(first, exports=world.exports(content="other bytes"))
    assert len({destination(pushed) for pushed in (one, more, changed)}) == 3
    assert (destination(more) / EXPORTS / "another" / "model.bin").is_file()


def test_a_damaged_export_is_a_lost_push(world: World) -> None:
    first = world.model("first")
    served = destination(world.push(first))
    (served / EXPORTS / "tiny" / "model.bin").write_text("broken")
    assert is_intact(served, layout.fingerprint(Path(first.artifact.uri) / "Format-Serving"))
    assert lost_pushes(world, first) == 1
    again = world.push(first)
    assert destination(again) != served
    assert (destination(again) / EXPORTS / "tiny" / "model.bin").read_text() == "exported"
    (destination(again) / EXPORTS / "parity.json").unlink()
    assert lost_pushes(world, first) == 2


def test_a_damaged_manifest_is_a_lost_push_and_the_model_is_pushed_anew(world: World) -> None:
    first = world.model("first")
    served = destination(world.push(first))
    manifest = served / layout.EVIDENCE_FILE
    manifest.write_bytes(manifest.read_bytes()[:-20])
    assert lost_pushes(world, first) == 1
    assert destination(world.push(first)) != served


def test_a_version_carries_its_card_which_is_no_part_of_the_model(world: World) -> None:
    first = world.model("first")
    pushed = world.push(first, card=world.card("of the first"))
    card = destination(pushed) / "assets.extra" / "model_card" / "model_card.md"
    assert card.read_text() == "of the first"
    assert pushed.get_string_custom_property("fingerprint") == layout.fingerprint(
        Path(first.artifact.uri) / "Format-Serving"
    )
    # Another card of a model that is served is no reason to push it again; a damaged one is.
    assert destination(world.push(first, card=world.card("in other words"))) == destination(pushed)
    assert lost_pushes(world, first) == 0
    card.write_text("blessed, by whoever wrote this")
    # Both pushes led to this version.
    assert lost_pushes(world, first) == 2
    assert destination(world.push(first)) != destination(pushed)


def test_without_a_report_on_the_exports_nothing_is_pushed(world: World) -> None:
    exports = world.exports()
    (Path(exports.uri) / "parity.json").write_text("{")
    with pytest.raises(ExportError, match=r"parity\.json: cannot read it"):
        world.push(world.model("first"), exports=exports)
    assert ModelRegistry(world.serving).versions() == []


def lost_pushes(world: World, model: Any) -> int:
    """Run the Pusher's driver; return what it counts."""
    from tfx.types import standard_artifacts

    information = SimpleNamespace(
        input_dict={"model": [model.artifact]}, output_dict={"pushed_model": [standard_artifacts.PushedModel()]}
    )
    output = pusher.PusherDriver(DriverConnection(world.recorder)).run(information)  # type: ignore[arg-type]
    return int(output.exec_properties["lost_pushes"].int_value)


def test_what_was_pushed_and_is_gone_or_damaged_is_counted(world: World) -> None:
    first, second = world.model("first"), world.model("second")
    assert lost_pushes(world, first) == 0
    pushed = world.push(first)
    assert (lost_pushes(world, first), lost_pushes(world, second)) == (0, 0)
    served = Path(pushed.get_string_custom_property("pushed_destination"))
    (served / "saved_model.pb").write_bytes(b"broken")
    assert (lost_pushes(world, first), lost_pushes(world, second)) == (1, 0)
    again = world.push(first)
    assert again.get_string_custom_property("pushed_version") != pushed.get_string_custom_property("pushed_version")
    assert lost_pushes(world, first) == 1
    shutil.rmtree(again.get_string_custom_property("pushed_destination"))
    assert lost_pushes(world, first) == 2


def test_a_clock_that_goes_back_makes_no_older_version(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.push(world.model("first"))
    monkeypatch.setattr(pusher.time, "time", lambda: 1000.0)
    world.push(world.model("second"))
    older, newer = ModelRegistry(world.serving).versions()
    assert newer == older + 1


def test_an_unwritable_serving_folder(world: World) -> None:
    world.serving.parent.parent.mkdir(exist_ok=True)
    world.serving.parent.write_text("a file where a folder should be")
    with pytest.raises(StorageError, match="not a directory"):
        world.push(world.model("first"))


def test_interrupted_executions_are_closed(world: World) -> None:
    from bike_pipeline.lineage.store.metadata_store import Lineage
    from bike_pipeline.lineage.store.writing import close_interrupted

    left = world.recorder.execution("Trainer", "killed", state=pb.Execution.RUNNING)
    done = world.recorder.execution("Transform", "killed")
    close_interrupted(Lineage(world.recorder.store), "killed")
    states = {e.id: e.last_known_state for e in world.recorder.store.get_executions()}
    assert (states[left], states[done]) == (pb.Execution.CANCELED, pb.Execution.COMPLETE)
