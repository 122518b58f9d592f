"""Candidates of a small model, made, exported, measured and chosen for real."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bike_pipeline import features
from bike_pipeline.exporting.compression.candidates import MODEL_FOLDER, TABLE_FILE, choose
from bike_pipeline.exporting.compression.rule import Candidate
from bike_pipeline.exporting.formats import registry
from bike_pipeline.exporting.formats.base import Format
from bike_pipeline.exporting.formats.tflite import Float16
from tests.exporting.compression.conftest import LOOSE


@pytest.fixture(scope="module")
def calibration(material: Any) -> dict[str, Any]:
    return {f.name: material.train[f.name][:50] for f in features.MODEL_INPUTS}


@pytest.fixture(scope="module")
def made(calibration: dict[str, Any], trying: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folder and the choice of two methods in one format."""
    folder = tmp_path_factory.mktemp("candidates")
    tried = trying("distillation", "pruning", **LOOSE, formats=("tflite_float32",))
    return folder, choose(tried, calibration, folder)


def _mae(answers: Any, rows: dict[str, Any]) -> float:
    return float(np.abs(answers - rows["cnt"]).mean())


def test_the_plain_model_stands_first_and_loses_nothing(made: Any) -> None:
    _, choice = made
    assert [c.method for c in choice.candidates] == ["plain", "distillation", "pruning"]
    assert choice.candidates[0].mae_increase == pytest.approx(0.0, abs=1e-6)
    assert choice.winner is choice.candidates[1]


def test_figures_are_those_of_the_files(made: Any, material: Any) -> None:
    folder, choice = made
    blessed = registry.format_of("saved_model").load(material.saved_model).predict(material.evaluated)
    for candidate in choice.candidates:
        path = folder / candidate.file
        assert path.stat().st_size == candidate.size_bytes > candidate.compressed_bytes > 0
        answers = registry.format_of(candidate.format).load(path.parent).predict(material.evaluated)
        mae = _mae(answers, material.evaluated)
        assert candidate.mae == pytest.approx(mae, rel=1e-6)
        assert candidate.mae_increase == pytest.approx(mae / _mae(blessed, material.evaluated) - 1, abs=1e-6)
        assert candidate.worst_slice_mae_increase >= candidate.mae_increase
        assert candidate.latency_us > 0
    assert choice.candidates[2].sparsity == pytest.approx(0.7, abs=0.02)


def test_every_candidate_is_a_saved_model_of_the_same_signature(made: Any, material: Any) -> None:
    from bike_pipeline.modeling.saved_model import signature_of

    folder, choice = made
    for candidate in choice.candidates:
        model = folder / candidate.method / MODEL_FOLDER
        assert signature_of(str(model)) == signature_of(str(material.saved_model))
        answers = registry.format_of("saved_model").load(model).predict(material.evaluated)
        exported = registry.format_of(candidate.format).load((folder / candidate.file).parent)
        assert np.allclose(exported.predict(material.evaluated), answers, rtol=1e-5, atol=1e-4)


def test_the_table_says_what_won_by_which_rule_and_why_each_other_lost(made: Any) -> None:
    folder, choice = made
    table = json.loads((folder / TABLE_FILE).read_text(encoding="utf-8"))
    assert table["winner"] == {"method": "distillation", "format": "tflite_float32"}
    assert table["rule"]["minimize"] == "size"
    assert table["rows"]["eval"] == 120
    assert [entry["reason"] for entry in table["candidates"]] == [choice.reasons[c.name] for c in choice.candidates]
    assert "least size of 3" in table["candidates"][1]["reason"]


def test_the_same_seed_gives_the_same_table_but_for_the_latencies(
    made: Any, calibration: dict[str, Any], trying: Any, tmp_path: Path
) -> None:
    _, choice = made
    again = choose(trying("distillation", "pruning", **LOOSE, formats=("tflite_float32",)), calibration, tmp_path)

    def repeated(candidate: Candidate) -> dict[str, Any]:
        # LiteRT's converter numbers its functions, so that what gzip makes of the file differs by a few bytes.
        return {k: v for k, v in vars(candidate).items() if k not in {"latency_us", "compressed_bytes"}}

    assert [repeated(candidate) for candidate in again.candidates] == [repeated(c) for c in choice.candidates]
    for first, second in zip(choice.candidates, again.candidates, strict=True):
        assert first.compressed_bytes == pytest.approx(second.compressed_bytes, abs=32)


class _Broken(Float16):
    """Writes its file and dies of it when loaded."""

    def load(self, folder: Path) -> Any:
        raise RuntimeError("no such operator")


def test_a_format_that_fails_costs_its_own_candidates_only(
    calibration: dict[str, Any], trying: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = registry.format_of

    def format_of(name: str) -> Format:
        return _Broken() if name == "tflite_float16" else real(name)

    monkeypatch.setattr(registry, "format_of", format_of)
    choice = choose(trying(**LOOSE, formats=("tflite_float16", "tflite_float32")), calibration, tmp_path)
    assert [c.format for c in choice.candidates] == ["tflite_float16", "tflite_float32"]
    assert choice.candidates[0].error == "it cannot be exported (RuntimeError: no such operator)"
    assert choice.winner is choice.candidates[1]
    assert not (tmp_path / "plain" / "tflite_float16").exists()


def test_a_format_with_a_process_of_its_own_is_exported_there(
    calibration: dict[str, Any], trying: Any, tmp_path: Path
) -> None:
    choice = choose(trying(**LOOSE, formats=("tflite_int8",)), calibration, tmp_path)
    (found,) = choice.candidates
    assert (found.error, found.format) == ("", "tflite_int8")
    assert choice.winner == found
    assert json.loads((tmp_path / TABLE_FILE).read_text(encoding="utf-8"))["winner"] is not None
