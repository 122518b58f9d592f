"""The Evaluator's changes against the baseline: what goes on record, and that no row goes without its date."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from bike_pipeline.errors import DataError
from bike_pipeline.modeling import slice_sums
from bike_pipeline.modeling.slice_sums import Job
from tests.components.evaluating import WIDE, World, blessed, lookup

LIMITS = [
    {"metric": metric, "max_increase": 0.02, "severe_increase": 0.15} for metric in ("mae", "rmse")
] + [{"metric": "mae", "slicing": "hour_band", "max_increase": 0.1, "severe_increase": 0.5}]  # fmt: skip


@pytest.fixture
def world(tmp_path: Path, exported: Any, examples: Any, schema: Any) -> World:
    """A model, and beside it a copy that serves."""
    made = World(tmp_path, exported.path, examples, schema)
    shutil.copytree(made.model.uri, tmp_path / "serving")
    return made


def against(world: World, monkeypatch: pytest.MonkeyPatch, factor: float, name: str, **changes: Any) -> Any:
    """Return the evaluation of a candidate whose answers are `factor` times those of the copy that serves."""
    predict = slice_sums._predict
    scaled = {True: factor, False: 1.0}
    with monkeypatch.context() as patch:
        patch.setattr(
            slice_sums,
            "_predict",
            lambda path, records: predict(path, records) * scaled[path.startswith(world.model.uri)],
        )
        limits = {"change_thresholds": LIMITS, **changes}
        return world.evaluate(name, lookup("found", world.folder / "serving"), **limits)


def test_the_changes_and_their_intervals_go_on_record(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six days of March: by days, with the plain limit overall, in words."""
    evaluated = against(world, monkeypatch, 1.0, "same")
    assert blessed(evaluated)
    evaluated = against(world, monkeypatch, 3.0, "worse")
    changes = {(d["metric"], d["slicing"], d["slice"]): d for d in evaluated.report["decisions"] if d["blocks"]}
    for metric in ("mae", "rmse"):
        change = changes[metric, "overall", ""]
        assert (change["blocks"], change["block_days"]) == (6, 1)
        assert "by 6 days, of fewer than 6 weeks" in change["reason"]
        assert change["low"] < change["value"] < change["high"]
        for end, name in (("value", ""), ("low", "_low"), ("high", "_high")):
            recorded = evaluated.evaluation.get_float_custom_property(f"change_{metric}{name}")
            assert recorded == pytest.approx(change[end])
    assert evaluated.report["worst_slice"]["change"] == max(
        change["value"] for key, change in changes.items() if key[1] != "overall"
    )
    assert evaluated.report["confidence"] == WIDE["bootstrap"]["confidence"]
    assert evaluated.report["hourly_mean_mae"] == min(evaluated.report["naive_maes"].values())


def test_a_change_is_decided_alike_on_beam(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    here = against(world, monkeypatch, 1.1, "here")
    assert any(decision["low"] for decision in here.report["decisions"])
    assert against(world, monkeypatch, 1.1, "beam", in_memory_rows=1).report == here.report


@pytest.mark.parametrize(
    ("date", "told"), [(None, "an example cannot be evaluated"), (b"soon", "a date cannot be read")]
)
def test_rows_without_a_date_give_one_clear_error(world: World, tmp_path: Path, date: Any, told: str) -> None:
    import tensorflow as tf

    (examples,) = world.inputs["examples"]
    source = str(next(Path(examples.uri, "Split-eval").iterdir()))
    example = tf.train.Example.FromString(next(iter(tf.data.TFRecordDataset(source, "GZIP"))).numpy())
    del example.features.feature["dteday"]
    if date:
        example.features.feature["dteday"].bytes_list.value.append(date)
    path = str(tmp_path / "undated.gz")
    with tf.io.TFRecordWriter(path, "GZIP") as writer:
        writer.write(example.SerializeToString())
    with pytest.raises(DataError, match=told) as raised:
        slice_sums.measure(Job(path, (), str(world.reference.parent.parent)))
    assert path in raised.value.where
