"""Which models saw some rows, and what changed between two models."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from bike_pipeline.data.ingest import ingest
from bike_pipeline.errors import DataError
from bike_pipeline.lineage.queries.audit import Comparison, Impact, compare, impact_of, parse_span
from bike_pipeline.lineage.queries.history import History
from bike_pipeline.lineage.records.run_record import flat
from bike_pipeline.lineage.store.metadata_store import Lineage
from bike_pipeline.settings import load_settings
from tests.lineage.world import FIRST, SECOND, Runs


def impact(runs: Runs, span: int, version: int | None) -> Impact:
    lineage = Lineage(runs.recorder.store)
    return impact_of(History(lineage), span, version, runs.settings.store_uri)


def comparison(runs: Runs) -> Comparison:
    lineage = Lineage(runs.recorder.store)
    return compare(History(lineage), runs.models[0].id, runs.models[1].id)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Two runs; only read."""
    return Runs(tmp_path_factory.mktemp("world")).two()


def test_both_models_saw_the_first_span_the_second_one_as_history(runs: Runs) -> None:
    found = impact(runs, 1, 1).sightings
    assert [(s.model_id, s.role, s.served_versions, s.serving) for s in found] == [
        (runs.models[0].id, "trained on", (FIRST,), False),
        (runs.models[1].id, "trained on as history", (SECOND,), True),
    ]
    assert [s.model_id for s in impact(runs, 2, 1).sightings] == [runs.models[1].id]
    assert impact(runs, 2, None) == Impact(2, None, impact(runs, 2, 1).sightings, ())


def test_rows_that_a_correction_took_over_count_too(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    runs.run("run-1", (1,), FIRST)
    rows = list(csv.DictReader((runs.workspace / "uploads" / "bike-2011.csv").open(encoding="utf-8")))[:48]
    with (tmp_path / "correction.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "hum": "0.5"} for row in rows)
    result = ingest(runs.settings, str(tmp_path / "correction.csv"))
    assert (result.version.span, result.version.version) == (1, 2)
    runs.run("run-2", (1, 2), SECOND)
    first, second = impact(runs, 1, 1).sightings
    assert (first.version, first.carried_over) == (1, None)
    assert (second.version, second.role, second.carried_over) == (2, "trained on as history", 8_645 - 48)
    (only,) = impact(runs, 1, 2).sightings
    assert (only.model_id, only.version, only.carried_over) == (runs.models[1].id, 2, None)


def test_a_warm_start_hands_on_what_its_beginning_saw(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    first = runs.run("run-1", (1,), FIRST)
    second = runs.run("run-2", (2,), SECOND, base=first)
    third = runs.run("run-3", (2,), SECOND + 1, base=second)
    found = {s.model_id: s.role for s in impact(runs, 1, 1).sightings}
    assert found == {
        first.id: "trained on",
        second.id: f"through the warm start of model {first.id}",
        third.id: f"through the warm start of model {second.id}",
    }


def test_a_span_that_no_model_saw_is_told_from_one_that_nobody_knows(runs: Runs, tmp_path: Path) -> None:
    fresh = Runs(tmp_path)
    assert impact(fresh, 1, 1).sightings == ()
    with pytest.raises(DataError, match="nothing is known of span 3 version 1"):
        impact(runs, 3, 1)
    with pytest.raises(DataError, match="nothing is known of span 1 version 9"):
        impact(runs, 1, 9)


def test_without_the_span_store_the_records_still_answer(tmp_path: Path) -> None:
    runs = Runs(tmp_path).two()
    manifest = runs.workspace / "spans" / "span-0001" / "version-0001" / "manifest.json"
    manifest.write_text("{", encoding="utf-8")
    found = impact(runs, 1, 1)
    assert len(found.sightings) == 2
    assert "not known" in found.notes[0]


@pytest.mark.parametrize("text", ["", "x", "1/", "/1", "1/x", "-1", "1/1/1"])
def test_what_names_no_span_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="names no span"):
        parse_span(text)


def test_spans_are_read_as_written() -> None:
    assert (parse_span("2"), parse_span("2/13")) == ((2, None), (2, 13))


def test_the_same_code_and_settings_on_more_data(runs: Runs) -> None:
    found = comparison(runs)
    assert set(found.same) == {"schema", "features", "code", "settings", "environment"}
    assert {d.part for d in found.differences} == {"data", "metrics"}
    data = {d.name: d for d in found.differences if d.part == "data"}
    assert "train, eval" in data["span 1"].before
    assert "history" in data["span 1"].after
    assert data["span 2"].before == ""
    metrics = {d.name: (d.before, d.after) for d in found.differences if d.part == "metrics"}
    assert metrics["overall mae"] == ("30.0000", "40.0000")
    assert metrics["winter rmse"] == ("60.0000", "80.0000")
    assert "overall rmsle" not in metrics
    assert found.unknown == ()


def test_every_changed_setting_and_schema_entry_is_named(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    runs.run("run-1", (1,), FIRST)
    schema = runs.settings.schema_path.read_text(encoding="utf-8")
    edited = tmp_path / "schema.pbtxt"
    edited.write_text(schema.replace('name: "hum"', 'name: "humidity"'), encoding="utf-8")
    assert edited.read_text(encoding="utf-8") != schema
    changed = load_settings(
        assignments=(f"workspace={tmp_path}", "training.epochs=3", "seed=5", f"schema_file={edited}")
    )
    runs.run("run-2", (1,), SECOND, settings=changed)
    found = {(d.part, d.name): (d.before, d.after) for d in comparison(runs).differences}
    shipped = runs.settings
    assert found["settings", "training.epochs"] == (str(shipped.training.epochs), "3")
    assert found["settings", "seed"] == (str(shipped.seed), "5")
    assert found["schema", "feature hum"][1] == ""
    assert found["schema", "feature humidity"][0] == ""
    assert {name for part, name in found if part == "settings"} == {"training.epochs", "seed", "schema_file"}


def test_what_older_records_lack_is_said_and_the_rest_compared(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    runs.run("older", (1,), FIRST, record=False)
    runs.run("run-2", (1,), SECOND, mae=31.0)
    found = comparison(runs)
    assert {d.part for d in found.differences} == {"metrics"}
    assert found.same == ("data",)
    assert f"model {runs.models[0].id}: the record of the run" in found.unknown
    assert any("code, settings" in text for text in found.unknown)


def test_nested_values_become_dotted_names() -> None:
    assert flat({"a": {"b": 1, "c": [1, 2]}, "d": None}) == {"a.b": "1", "a.c": "[1, 2]", "d": "null"}
