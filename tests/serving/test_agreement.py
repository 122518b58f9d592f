"""How far two models are apart."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from bike_pipeline.use_cases import run
from bike_pipeline.use_cases.run import agreement_of

METRICS: list[dict[str, Any]] = [
    {"slicing": "overall", "slice": "", "rows": 9.0, "mae": 30.0, "rmse": 50.0, "bias": 0.1},
    {"slicing": "season", "slice": "1", "rows": 4.0, "mae": 20.0, "rmse": 40.0, "bias": None},
]


def changed(**values: Any) -> list[dict[str, Any]]:
    return [{**METRICS[0], **values}, METRICS[1]]


def test_the_same_model_is_identical(exported: Any, tmp_path: Path) -> None:
    shutil.copytree(exported.path, tmp_path / "copy")
    found = agreement_of(exported.path, tmp_path / "copy", exported.rows, METRICS, METRICS)
    assert found.identical
    assert (found.rows, found.different_rows, found.largest_difference) == (600, 0, 0.0)
    assert found.metrics == {"mae": 0.0, "rmse": 0.0, "bias": 0.0}


def test_every_other_bit_of_a_prediction_counts(exported: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    answers = iter([np.float32([1.0, 2.0, 3.0]), np.float32([1.0, np.nextafter(np.float32(2), np.float32(3)), 3.5])])

    class Answering:
        def __init__(self, folder: Path) -> None:
            self.answer = next(answers)

        def predict(self, columns: Any) -> Any:
            return self.answer

    monkeypatch.setattr("bike_pipeline.modeling.loaded_model.LoadedModel", Answering)
    found = agreement_of(Path("a"), Path("b"), {}, METRICS, METRICS)
    assert not found.identical
    assert (found.rows, found.different_rows, found.largest_difference) == (3, 2, 0.5)


def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    class Same:
        def __init__(self, folder: Path) -> None:
            pass

        def predict(self, columns: Any) -> Any:
            return np.float32([1.0])

    monkeypatch.setattr("bike_pipeline.modeling.loaded_model.LoadedModel", Same)


@pytest.mark.parametrize(
    ("metrics", "identical"),
    [
        (METRICS, True),
        (changed(mae=30.0 * (1 + run.ROUNDING / 2)), True),
        (changed(mae=30.0001), False),
        (changed(mae=math.nan), False),
        (changed(mae=None), False),
        (changed(rows=8.0), False),
        (METRICS[:1], False),
        ([], False),
        (None, False),
    ],
)
def test_metrics_must_agree_too(monkeypatch: pytest.MonkeyPatch, metrics: Any, identical: bool) -> None:
    fake(monkeypatch)
    assert agreement_of(Path("a"), Path("b"), {}, METRICS, metrics).identical is identical
    assert agreement_of(Path("a"), Path("b"), {}, metrics, METRICS).identical is identical


def test_without_the_models_files_nothing_is_called_identical() -> None:
    found = agreement_of(None, Path("b"), {}, METRICS, changed(mae=31.5))
    assert (found.rows, found.largest_difference, found.identical) == (0, None, False)
    assert found.metrics["mae"] == 1.5
