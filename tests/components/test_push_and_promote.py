"""What is pushed is validated and promoted; the baseline is what is promoted; both on object storage too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bike_pipeline.errors import BaselineError, ServerError
from bike_pipeline.lineage.store.feedback_updates import record_missing
from bike_pipeline.lineage.store.metadata_store import Lineage
from bike_pipeline.model_registry import ModelRegistry, layout, registry
from bike_pipeline.rollout import validation
from bike_pipeline.rollout.promotion import RolloutTargets
from bike_pipeline.serving.predictor import Predictor
from bike_pipeline.settings import load_settings
from bike_pipeline.stages import FEEDBACK_PROPERTY
from bike_pipeline.storage.files import open_files
from tests.components.pushing import World
from tests.rollout.storages import s3


@pytest.fixture
def world(tmp_path: Path, exported: Any, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world with nothing pushed, whose versions pass their validation."""
    monkeypatch.setattr(validation, "validate", lambda *_: validation.TrialReport(64, 1.0, 2.0, 300.0, 0.0))
    world = World(tmp_path, exported.path)
    world.parameters = {"promotion": RolloutTargets.of(load_settings()).to_json()}
    return world


def versions(world: World) -> list[int]:
    return ModelRegistry(world.serving).versions()


def baseline_version(world: World) -> int:
    found = world.resolve(world.model(f"candidate {len(list(world.folder.iterdir()))}"))
    return int(json.loads(found["baseline"])["version"])


def test_a_push_is_promoted(world: World) -> None:
    pushed = world.push(world.model("first"))
    assert pushed.get_string_custom_property("promotion") == ""
    assert [ModelRegistry(world.serving).serving()] == versions(world)


def test_a_version_that_does_not_pass_is_pushed_and_serves_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.push(world.model("first"))
    second = world.model("second")

    def slow(*_: Any) -> Any:
        raise ServerError("it is too slow")

    with monkeypatch.context() as failing:
        failing.setattr(validation, "validate", slow)
        with pytest.raises(ServerError, match="too slow"):
            world.push(second)
    first, left = versions(world)
    assert ModelRegistry(world.serving).serving() == first == baseline_version(world)
    # The next run tries the same version again and pushes nothing.
    world.push(second)
    assert versions(world) == [first, left]
    assert ModelRegistry(world.serving).serving() == left == baseline_version(world)


def test_a_process_that_dies_between_push_and_promotion_goes_on_from_there(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.push(world.model("first"))
    second = world.model("second")

    def killed(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(ModelRegistry, "promote", killed)
        with pytest.raises(KeyboardInterrupt):
            world.push(second, record=False)
    first, left = versions(world)
    assert ModelRegistry(world.serving).serving() == first
    world.push(second)
    assert versions(world) == [first, left]
    assert ModelRegistry(world.serving).serving() == left


def test_after_a_rollback_the_baseline_is_what_serves(world: World) -> None:
    world.push(world.model("first"))
    second = world.model("second")
    world.push(second)
    first, left = versions(world)
    assert baseline_version(world) == left
    ModelRegistry(world.serving).rollback()
    assert baseline_version(world) == first
    # A run that comes to the same model again leaves it where somebody put it.
    again = world.push(second)
    assert "somebody went back" in again.get_string_custom_property("promotion")
    assert ModelRegistry(world.serving).serving() == first
    assert versions(world) == [first, left]


def test_a_version_that_labels_made_is_the_baseline_and_its_model_is_not_pushed_again(world: World) -> None:
    first = world.model("first")
    world.push(first)
    registry, (version,) = ModelRegistry(world.serving), versions(world)
    model = world.folder / "updated"
    layout.copy_model(registry.folder(version), model)
    (model / "assets.extra" / "feedback.json").write_text("other labels", encoding="utf-8")
    told = {"of": version, "updates": 1, "upload": {"source": "labels.csv", "rows": 3}}
    changed = {"fingerprint": layout.fingerprint(model), "exports_fingerprint": "", "feedback_of": version}
    record = {**(registry.push_record(version) or {}), **changed, "feedback": told}
    registry.add(model, version + 1, record)
    record_missing(Lineage(world.recorder.store), registry)
    registry.set_validated(version + 1, passed=True, reason="a test")
    registry.promote(version + 1)
    pushed = world.push(first, record=False)
    assert versions(world) == [version, version + 1]
    assert pushed.get_string_custom_property("pushed_version") == str(version + 1)
    assert pushed.get_string_custom_property("fingerprint") == changed["fingerprint"]
    assert json.loads(pushed.get_string_custom_property(FEEDBACK_PROPERTY)) == told
    assert registry.serving() == version + 1
    baseline = world.look_up(world.model("second"))
    assert baseline.get_string_custom_property("state") == "found"
    assert baseline.get_int_custom_property("serving_version") == version + 1
    assert next(Path(baseline.uri).rglob("feedback.json")).read_text(encoding="utf-8") == "other labels"
    # Once its files are damaged, what the run made is pushed.
    (registry.folder(version + 1) / "saved_model.pb").write_bytes(b"")
    world.push(first)
    assert versions(world)[-1] > version + 1


def test_push_baseline_and_prediction_work_on_object_storage(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few_rows: Any
) -> None:
    monkeypatch.setenv(registry.CACHE_VARIABLE, str(tmp_path / "cache"))
    with s3(monkeypatch) as address:
        world.serving = f"{address}/bike_demand"  # type: ignore[assignment]
        model = world.model("first")
        pushed = world.push(model)
        (version,) = versions(world)
        assert pushed.get_string_custom_property("pushed_destination") == f"{world.serving}/{version}"
        assert ModelRegistry(world.serving).serving() == version
        # The same model once more is not pushed again.
        world.push(model)
        assert versions(world) == [version]
        baseline = world.look_up(world.model("second"))
        trained = Path(model.artifact.uri) / "Format-Serving"
        expected = layout.fingerprint(trained)
        assert layout.fingerprint(Path(baseline.uri) / "Format-Serving") == expected
        predicted = Predictor(str(world.serving)).predict(few_rows)
        assert len(predicted) == len(few_rows["hr"])
        # A version that was changed there is pushed again; where the trained one is gone too, it is told.
        open_files(world.serving)._put(f"{version}/variables/variables.index", b"changed")
        (trained / "fingerprint.pb").write_bytes(b"changed too")
        with pytest.raises(BaselineError, match="gone or changed"):
            world.look_up(world.model("third"))
