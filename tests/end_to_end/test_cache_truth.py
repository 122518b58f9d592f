"""The cache tells the truth: changed code runs again, unchanged code does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.end_to_end.conftest import ROOT, Product

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Product:
    """A copy of the project that may be edited, with one run behind it."""
    folder = tmp_path_factory.mktemp("edited")
    for name in ("bike_pipeline", "runners", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    product = Product(folder / "workspace", folder)
    first = product.call("run", "--demo", "first", "--json")
    assert first.code == 0, first.err
    return product


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_an_edited_feature_is_transformed_and_trained_again(product: Product) -> None:
    _edit(
        product.source / "bike_pipeline" / "modeling" / "preprocessing.py",
        "HARMONICS = (1, 2, 3)",
        "HARMONICS = (1, 2)",
    )
    again = product.call("run", "--json")
    assert again.code in (0, 6), again.err
    states = again.states
    assert {states[name] for name in ("Transform", "Trainer", "Evaluator")} == {"done"}
    assert {states[name] for name in ("CsvExampleGen", "ImportSchemaGen", "StatisticsGen", "DataGate")} == {"cached"}


def test_an_edited_schema_is_imported_again(product: Product) -> None:
    _edit(product.source / "configs" / "schema.pbtxt", "threshold: 0.15", "threshold: 0.16")
    again = product.call("run", "--json")
    assert again.code in (0, 6), again.err
    assert again.states["CsvExampleGen"] == "cached"
    assert {again.states[name] for name in ("ImportSchemaGen", "ExampleValidator", "DataGate")} == {"done"}


def test_a_changed_training_setting_leaves_the_transform_alone(product: Product) -> None:
    again = product.call("run", "--json", "--set", "training.epochs=3")
    assert again.code in (0, 6), again.err
    assert again.states["Transform"] == "cached"
    assert again.states["Trainer"] == "done"


def test_beam_flags_are_no_part_of_any_cache_key(product: Product) -> None:
    product.call("run", "--json")
    again = product.call("run", "--json", "--set", "beam.pipeline_args=[--runner=FnApiRunner]")
    assert set(again.states.values()) == {"cached"}


def test_no_cache_runs_everything(product: Product) -> None:
    again = product.call("run", "--json", "--no-cache", "--set", "training.epochs=2")
    assert set(again.states.values()) == {"done"}
