"""The baseline is the model that serves; a push is whole, once, and only of what is blessed."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ml_metadata.proto import metadata_store_pb2 as pb

from bike_pipeline.components import baseline_lookup, pusher
from bike_pipeline.errors import BaselineError, ExportError, StorageError
from bike_pipeline.model_registry import ModelRegistry, is_intact, layout
from tests.recording import Recorder


class World:
    """A metadata store, a serving folder, and models that are copies of one small real one."""

    def __init__(self, folder: Path, saved_model: Path) -> None:
        """Nothing is pushed yet."""
        self.folder, self.saved_model = folder, saved_model
        self.serving = folder / "serving" / "bike_demand"
        self.recorder = Recorder(folder / "metadata.sqlite")
        # Further parameters of the Pusher, such as `promotion`.
        self.parameters: dict[str, Any] = {}

    def model(self, name: str, extra: str = "") -> Any:
        """Return a trained model's artifact; `extra` makes its bytes its own."""
        from tfx.types import standard_artifacts

        uri = self.folder / name
        shutil.copytree(self.saved_model, uri / "Format-Serving")
        (uri / "Format-Serving" / "assets.extra" / "note.txt").write_text(name + extra)
        recorded = self.recorder.model(name, str(uri))
        artifact = standard_artifacts.Model()
        artifact.uri, artifact.id = str(uri), recorded.id
        return SimpleNamespace(artifact=artifact, recorded=recorded)

    def exports(self, content: str = "exported", latency_us: float = 20.0, **others: str) -> Any:
        """Return what the Exporter made: two formats that passed and one that did not."""
        from bike_pipeline.components.artifact_types import Exports

        artifact = Exports()
        artifact.uri = str(self.folder / "exports" / str(time.monotonic_ns()))
        formats = {"saved_model": "itself", "tiny": content, "wrong": "wrong", **others}
        for name, text in formats.items():
            (Path(artifact.uri) / name).mkdir(parents=True)
            (Path(artifact.uri) / name / "model.bin").write_text(text)
        entries = {name: {"passed": name != "wrong", "latency_us": latency_us} for name in formats}
        (Path(artifact.uri) / "parity.json").write_text(json.dumps({"formats": entries}))
        (Path(artifact.uri) / "golden.json").write_text("{}")
        return artifact

    def card(self, text: str = "a card") -> Any:
        """Return what the stage ModelCard wrote."""
        from bike_pipeline.components.artifact_types import ModelCard

        artifact = ModelCard()
        artifact.uri = str(self.folder / "cards" / str(time.monotonic_ns()))
        Path(artifact.uri).mkdir(parents=True)
        (Path(artifact.uri) / "model_card.md").write_text(text)
        return artifact

    def push(self, model: Any, blessed: bool = True, record: bool = True, exports: Any = None, card: Any = None) -> Any:
        """Run the Pusher; record it in ML Metadata unless the process is to have been killed before."""
        from tfx.types import standard_artifacts

        blessing = standard_artifacts.ModelBlessing()
        blessing.set_int_custom_property("blessed", int(blessed))
        blessing.set_string_custom_property("metric_set", "m")
        pushed = standard_artifacts.PushedModel()
        pushed.uri = str(self.folder / "pushed" / str(time.monotonic_ns()))
        pusher.PusherExecutor().Do(
            {
                "model": [model.artifact],
                "model_blessing": [blessing],
                "exports": [exports or self.exports()],
                "model_card": [card or self.card()],
            },
            {"pushed_model": [pushed]},
            {
                "push_destination": json.dumps({"filesystem": {"base_directory": str(self.serving)}}),
                **self.parameters,
            },
        )
        if record and pushed.get_int_custom_property("pushed"):
            properties = {
                k: pushed.get_string_custom_property(k) for k in ("fingerprint", "metric_set", "exports_fingerprint")
            }
            version = int(pushed.get_string_custom_property("pushed_version"))
            destination = pushed.get_string_custom_property("pushed_destination")
            self.recorder.push(model.recorded.id.__str__(), model.recorded, version, destination, **properties)
        return pushed

    def resolve(self, model: Any, accept: bool = False, metric_set: str = "m") -> dict[str, Any]:
        """Run the lookup's driver; return the parameters of the execution."""
        properties = {
            "serving_path": str(self.serving),
            "metric_set": metric_set,
            "accept_baseline_reset": int(accept),
        }
        driver = baseline_lookup.BaselineDriver(_Connection(self.recorder))  # type: ignore[arg-type]
        inputs = {"model": [model.artifact]} if model else {}
        information = SimpleNamespace(exec_properties=properties, input_dict=inputs)
        output = driver.run(information)  # type: ignore[arg-type]
        return {**properties, **{k: getattr(v, v.WhichOneof("value")) for k, v in output.exec_properties.items()}}

    def look_up(self, model: Any, **options: Any) -> Any:
        """Run driver and executor; return the baseline artifact."""
        from tfx.types import standard_artifacts

        output = standard_artifacts.Model()
        output.uri = str(self.folder / "baseline" / str(time.monotonic_ns()))
        baseline_lookup.BaselineLookupExecutor().Do(
            {"model": [model.artifact]} if model else {},
            {"baseline_model": [output]},
            self.resolve(model, **options),
        )
        return output


class _Connection:
    """What TFX hands to a driver: a context that opens the store."""

    def __init__(self, recorder: Recorder) -> None:
        self.store = recorder.store

    def __enter__(self) -> _Connection:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def world(tmp_path: Path, exported: Any) -> World:
    """A world with nothing pushed."""
    return World(tmp_path, exported.path)


def state(baseline: Any) -> str:
    """Return the lookup's verdict."""
    return str(baseline.get_string_custom_property("state"))


def test_no_baseline_says_so(world: World) -> None:
    baseline = world.look_up(world.model("first"))
    assert state(baseline) == "none"
    assert baseline.get_string_custom_property("reason") == "no model has been pushed yet"


def test_the_serving_model_is_copied_byte_for_byte(world: World) -> None:
    first = world.model("first")
    world.push(first)
    baseline = world.look_up(world.model("second"))
    assert state(baseline) == "found"
    source = Path(first.artifact.uri) / "Format-Serving"
    assert layout.fingerprint(Path(baseline.uri) / "Format-Serving") == layout.fingerprint(source)


def test_a_candidate_that_serves_keeps_its_own_baseline(world: World) -> None:
    first, second = world.model("first"), world.model("second")
    world.push(first)
    before = world.resolve(second)
    parameters = {key: before[key] for key in ("baseline", "accept_baseline_reset")}
    world.recorder.execution("BaselineLookup", "b", {"model": second.recorded}, **parameters)
    world.push(second)
    assert world.resolve(second) == before
    assert world.resolve(world.model("third")) != before


def test_a_changed_signature_is_refused_until_accepted(world: World) -> None:
    world.push(world.model("first"))
    changed = world.model("second")
    _rename_input(Path(changed.artifact.uri) / "Format-Serving" / "saved_model.pb")
    with pytest.raises(BaselineError, match=r"the signature 'serving_default' has changed.*--accept-baseline-reset"):
        world.look_up(changed)
    accepted = world.look_up(changed, accept=True)
    assert state(accepted) == "reset"
    assert "signature" in accepted.get_string_custom_property("reason")


def test_a_signature_that_is_new_is_no_change_and_one_that_is_gone_is(world: World) -> None:
    first, second, third = (world.model(name) for name in ("first", "second", "third"))
    for model in (first, third):
        path = Path(model.artifact.uri) / "Format-Serving" / "saved_model.pb"
        proto = _read(path)
        del proto.meta_graphs[0].signature_def["serving_all_inputs"]
        path.write_bytes(proto.SerializeToString())
    world.push(first)
    assert state(world.look_up(second)) == "found"
    world.push(second)
    with pytest.raises(BaselineError, match="the signature 'serving_all_inputs' has changed"):
        world.look_up(third)


def _read(path: Path) -> Any:
    from tensorflow.core.protobuf import saved_model_pb2

    return saved_model_pb2.SavedModel.FromString(path.read_bytes())


def _rename_input(path: Path) -> None:
    proto = _read(path)
    inputs = proto.meta_graphs[0].signature_def["serving_default"].inputs
    inputs["temperature"].CopyFrom(inputs["temp"])
    del inputs["temp"]
    path.write_bytes(proto.SerializeToString())


def test_a_changed_metric_set_is_refused_until_accepted(world: World) -> None:
    world.push(world.model("first"))
    candidate = world.model("second")
    with pytest.raises(BaselineError, match="set of metrics"):
        world.look_up(candidate, metric_set="other")
    assert state(world.look_up(candidate, metric_set="other", accept=True)) == "reset"


def test_a_reset_is_not_taken_where_none_is_needed(world: World) -> None:
    world.push(world.model("first"))
    assert state(world.look_up(world.model("second"), accept=True)) == "found"


def test_a_damaged_serving_model_falls_back_on_the_trained_one(world: World) -> None:
    first = world.model("first")
    pushed = world.push(first)
    (Path(pushed.get_string_custom_property("pushed_destination")) / "saved_model.pb").write_bytes(b"broken")
    assert state(world.look_up(world.model("second"))) == "found"
    shutil.rmtree(first.artifact.uri)
    with pytest.raises(BaselineError, match="gone or changed"):
        world.look_up(world.model("third"))


def test_a_push_that_was_never_recorded_is_believed(world: World) -> None:
    world.push(world.model("first"))
    second = world.model("second")
    world.push(second, record=False)
    baseline = world.look_up(world.model("third"))
    expected = layout.fingerprint(Path(second.artifact.uri) / "Format-Serving")
    assert layout.fingerprint(Path(baseline.uri) / "Format-Serving") == expected


def test_a_warm_start_finds_the_serving_model_whatever_it_was_measured_by(world: World) -> None:
    assert state(world.look_up(None)) == "none"
    first = world.model("first")
    world.push(first)
    found = world.look_up(None, metric_set="other")
    assert state(found) == "found"
    assert found.get_int_custom_property("serving_version") == ModelRegistry(world.serving).versions()[0]
    source = Path(first.artifact.uri) / "Format-Serving"
    assert layout.fingerprint(Path(found.uri) / "Format-Serving") == layout.fingerprint(source)


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
    output = pusher.PusherDriver(_Connection(world.recorder)).run(information)  # type: ignore[arg-type]
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
