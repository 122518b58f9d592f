"""The served blend in the formats of every device: the same answers, and small enough."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bike_pipeline.exporting.acceptance.parity import compare
from bike_pipeline.exporting.formats import frozen_graph
from bike_pipeline.exporting.formats.registry import format_of
from tests.conftest import TRAINING

FORMATS = ("tflite_float32", "c_source")


@pytest.mark.parametrize("name", FORMATS)
def test_formats_without_an_extra_answer_as_the_saved_model_does(name: str, full_size: Any, tmp_path: Path) -> None:
    found = format_of(name)
    found.export(full_size.source, tmp_path)
    loaded = found.load(tmp_path)
    assert compare(full_size.answers, loaded.predict(full_size.golden)).max_relative_difference <= 1e-5
    # Thresholds lie among such rows: a comparison that falls otherwise would show.
    assert compare(full_size.predicted, loaded.predict(full_size.rows)).max_relative_difference <= 1e-5


def test_what_a_device_gets_is_small(full_size: Any, tmp_path: Path) -> None:
    format_of("tflite_float32").export(full_size.source, tmp_path)
    assert (tmp_path / "model.tflite").stat().st_size <= 400_000
    folder = full_size.source.saved_model
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 2_000_000


def test_the_trees_are_a_part_of_the_answer(full_size: Any) -> None:
    graph = frozen_graph.read(full_size.source)
    gathers = [
        operation for operation in graph.operations if operation.kind == "GatherV2" and "trees" in operation.name
    ]
    assert len(gathers) > 2 * 6
    assert np.unique(full_size.answers).size > 500


@pytest.mark.parametrize("name", FORMATS)
def test_trees_alone_are_exported_too(
    name: str, few_rows: dict[str, Any], transform_graph: Path, full_size: Any, tmp_path: Path
) -> None:
    from bike_pipeline.exporting.formats.base import Source
    from bike_pipeline.modeling import saved_model, training
    from bike_pipeline.modeling.loaded_model import LoadedModel

    model, losses = training.train(few_rows, str(transform_graph), {**TRAINING, "architecture": "trees"}, seed=7)
    assert losses == []
    start = training.first_feedback(model, str(transform_graph), TRAINING, None)
    saved_model.write(model, str(transform_graph), str(tmp_path / "model"), {}, start)
    (tmp_path / "made").mkdir()
    format_of(name).export(Source(tmp_path / "model", few_rows), tmp_path / "made")
    answers = LoadedModel(tmp_path / "model").predict(full_size.golden)
    assert answers.std() > 10
    loaded = format_of(name).load(tmp_path / "made")
    assert compare(answers, loaded.predict(full_size.golden)).max_relative_difference <= 1e-5
