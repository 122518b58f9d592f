"""The compressed model as an export format: what the rule chose, with the table beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bike_pipeline import features
from bike_pipeline.errors import ExportError
from bike_pipeline.exporting.formats import registry
from bike_pipeline.exporting.formats.base import Source
from bike_pipeline.settings import load_settings
from tests.exporting.compression.conftest import LOOSE


def _source(material: Any, trying: Any, **changed: Any) -> Source:
    calibration = {f.name: material.train[f.name][:50] for f in features.MODEL_INPUTS}
    return Source(material.saved_model, calibration, trying("distillation", formats=("tflite_float32",), **changed))


def test_the_winners_file_and_the_table_are_the_export(material: Any, trying: Any, tmp_path: Path) -> None:
    compressed = registry.format_of("compressed")
    compressed.export(_source(material, trying, **LOOSE), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["compression.json", "model.tflite"]
    table = json.loads((tmp_path / "compression.json").read_text(encoding="utf-8"))
    won = next(entry for entry in table["candidates"] if entry["method"] == "distillation")
    assert table["winner"] == {"method": "distillation", "format": "tflite_float32"}
    answers = compressed.load(tmp_path).predict(material.evaluated)
    assert np.abs(answers - material.evaluated["cnt"]).mean() == pytest.approx(won["mae"], rel=1e-6)


def test_without_a_candidate_within_the_limits_nothing_is_written(
    material: Any, trying: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bike_pipeline.exporting.compression import candidates

    def fail(*_: Any) -> None:
        raise ExportError("no such operator")

    monkeypatch.setattr(candidates, "_export", fail)
    with pytest.raises(ExportError, match=r"no candidate is within the limits; nearest is plain .*: no such operator"):
        registry.format_of("compressed").export(_source(material, trying), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_source_without_rows_to_train_on_is_refused(material: Any, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="which only a run of the pipeline does"):
        registry.format_of("compressed").export(Source(material.saved_model, {}), tmp_path)


def test_a_run_exports_it_first_where_methods_are_set_and_else_not_at_all() -> None:
    assert "compressed" not in load_settings().exporting.all_formats
    wanted = load_settings(assignments=("exporting.compression.methods=[distillation]",)).exporting
    assert wanted.all_formats == ("compressed", *wanted.formats)
