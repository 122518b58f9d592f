"""The baseline is the model that serves."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from bike_pipeline.errors import BaselineError
from bike_pipeline.model_registry import ModelRegistry, layout
from tests.components.pushing import World


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
