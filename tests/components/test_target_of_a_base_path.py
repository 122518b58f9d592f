"""A base path has one target: a model of another one is no baseline, and is not pushed over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bike_pipeline.errors import BaselineError
from tests.components.pushing import World


@pytest.fixture
def world(tmp_path: Path, exported: Any) -> World:
    """A world in which a model of rentals serves."""
    made = World(tmp_path, exported.path)
    made.push(made.model("rentals"))
    return made


@pytest.fixture
def busy(tmp_path: Path, busy_model: Any) -> World:
    """A world in which a classifier serves."""
    made = World(tmp_path, busy_model.path)
    made.push(made.model("busy"))
    return made


@pytest.mark.parametrize("accept", [False, True])
def test_a_reset_does_not_make_another_target_comparable(world: World, busy_model: Any, accept: bool) -> None:
    world.saved_model = busy_model.path
    with pytest.raises(BaselineError, match="a model of rentals serves, and the candidate is of busy") as caught:
        world.look_up(world.model("busy"), accept=accept)
    assert "serving.model_name of its own" in caught.value.fix


def test_what_the_metadata_do_not_know_is_not_pushed_over_either(world: World, busy_model: Any) -> None:
    before = sorted(path.name for path in world.serving.iterdir())
    world.saved_model = busy_model.path
    with pytest.raises(BaselineError, match="neither is the other's baseline"):
        world.push(world.model("busy"))
    assert sorted(path.name for path in world.serving.iterdir()) == before


def test_versions_of_earlier_releases_are_of_rentals(world: World, busy_model: Any) -> None:
    (record,) = world.serving.glob("*/push.json")
    content = json.loads(record.read_text(encoding="utf-8"))
    assert content.pop("target") == "rentals"
    record.write_text(json.dumps(content), encoding="utf-8")
    world.push(world.model("later"))
    world.saved_model = busy_model.path
    with pytest.raises(BaselineError):
        world.push(world.model("busy"))


def test_the_same_target_is_compared_and_pushed(busy: World) -> None:
    second = busy.model("second")
    assert busy.look_up(second).get_string_custom_property("state") == "found"
    busy.push(second)
    assert {json.loads(r.read_text(encoding="utf-8"))["target"] for r in busy.serving.glob("*/push.json")} == {"busy"}


def test_another_threshold_is_compared_only_where_a_reset_is_accepted(busy: World) -> None:
    second = busy.model("second")
    file = Path(second.artifact.uri) / "Format-Serving" / "assets.extra" / "target.json"
    stored = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**stored, "above": stored["above"] + 10}), encoding="utf-8")
    with pytest.raises(BaselineError, match=rf"training.busy_above={stored['above']:g} keeps the meaning"):
        busy.look_up(second)
    assert busy.look_up(second, accept=True).get_string_custom_property("state") == "reset"
