"""The cache tells the truth: changed code runs again, unchanged code does not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from bike_pipeline.lineage.store.connection import open_at
from tests.end_to_end.conftest import ROOT, Product

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Product:
    """A copy of the project that may be edited, with one run behind it."""
    folder = tmp_path_factory.mktemp("edited")
    for name in ("bike_pipeline", "runners", "configs"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    _edit(folder / "configs" / "base.yaml", "  epochs: 24\n", "  epochs: 8\n")
    product = Product(folder / "workspace", folder)
    first = product.call("run", "--demo", "first", "--json")
    assert first.code == 0, first.err
    return product


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def _recorded(product: Product, run_id: str) -> list[Any]:
    """Return everything that ML Metadata holds of a run but for ids, names and times of its own."""
    store = open_at(f"sqlite://{product.workspace}/metadata.sqlite")
    context = store.get_context_by_type_and_name("pipeline_run", run_id)
    types = {kind.id: kind.name for kind in store.get_execution_types()}
    found: list[Any] = []
    for execution in sorted(store.get_executions_by_context(context.id), key=lambda execution: execution.id):
        events = store.get_events_by_execution_ids([execution.id])
        found.append(
            (
                types[execution.type_id],
                execution.last_known_state,
                {name: str(value) for name, value in execution.custom_properties.items()},
                sorted((e.artifact_id, e.type, e.path.SerializeToString()) for e in events),
                sorted((c.type, c.name) for c in store.get_contexts_by_execution(execution.id) if c.id != context.id),
            )
        )
    return [*found, sorted(artifact.id for artifact in store.get_artifacts_by_context(context.id))]


def test_a_repetition_is_recorded_as_the_ordinary_way_records_it(product: Product) -> None:
    repeated = product.call("run", "--json")
    assert "nothing has changed since run" in Path(repeated.result["log"]).read_text(errors="replace")
    # No stage runs this file, but a run that was answered without looking at the stages would not know that.
    _edit(product.source / "bike_pipeline" / "commands" / "set_up.py", "from __future__", "\nfrom __future__")
    ordinary = product.call("run", "--json")
    assert "changed since run" in Path(ordinary.result["log"]).read_text(errors="replace")
    assert set(repeated.states.values()) == set(ordinary.states.values()) == {"cached"}
    assert _recorded(product, repeated.result["run_id"]) == _recorded(product, ordinary.result["run_id"])
    for key in ("pushed_version", "newly_pushed", "decisions", "destination"):
        assert repeated.result[key] == ordinary.result[key]
    outcomes = [[stage["outcome"] for stage in run.result["stages"]] for run in (repeated, ordinary)]
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    ("edited", "stages"),
    [
        # Deep in the graph of imports, and no other stage takes what these two make.
        (("data/plausibility.py", "lineage/queries/evidence.py"), {"DataGate", "ModelCard", "Pusher"}),
        # The Pusher takes the exports.
        (("exporting/formats/tflite.py",), {"Exporter", "Pusher"}),
        (("commands/set_up.py", "errors.py"), set()),
    ],
)
def test_an_edited_file_is_run_again_by_exactly_the_stages_that_import_it(
    product: Product, edited: tuple[str, ...], stages: set[str]
) -> None:
    for name in edited:
        _edit(product.source / "bike_pipeline" / name, "from __future__", "\nfrom __future__")
    again = product.call("run", "--json")
    assert again.code == 0, again.err
    assert {name for name, state in again.states.items() if state == "done"} == stages
    assert set(again.states.values()) <= {"done", "cached"}


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
    again = product.call("run", "--json", "--set", "beam.pipeline_args=[--direct_runner_bundle_repeat=0]")
    assert set(again.states.values()) == {"cached"}


def test_no_cache_runs_everything(product: Product) -> None:
    again = product.call("run", "--json", "--no-cache", "--set", "training.epochs=2")
    assert set(again.states.values()) == {"done"}
