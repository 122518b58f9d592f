"""Every format of a blessed model is proven or kept back, and none of them takes the run down."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bike_pipeline.errors import ConfigurationError, ExportError
from bike_pipeline.exporting.formats import registry
from bike_pipeline.exporting.formats.base import Source
from bike_pipeline.model_registry import layout
from bike_pipeline.modeling.golden import broken_rows, golden_rows, read_golden
from bike_pipeline.modeling.saved_model import input_signature
from bike_pipeline.settings import load_settings
from tests.components.exporting import MIN_ROWS, World
from tests.exporting import plugin


@pytest.fixture
def world(tmp_path: Path, exported: Any, examples: Any, schema: Any, monkeypatch: pytest.MonkeyPatch) -> World:
    """The model, with the formats of a plug-in package installed beside ours."""
    plugin.install(tmp_path / "installed")
    monkeypatch.syspath_prepend(tmp_path / "installed")
    return World(tmp_path, exported.path, examples, schema)


@pytest.fixture(scope="module")
def plain(exported: Any, examples: Any, schema: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What one export to LiteRT came to, which tests only read."""
    return World(tmp_path_factory.mktemp("plain"), exported.path, examples, schema).export("tflite_float32")


def test_a_format_that_answers_alike_is_measured_and_passes(plain: Any) -> None:
    assert plain.report["blessed"]
    assert plain.report["model_id"] == 7
    saved_model, entry = (plain.report["formats"][name] for name in ("saved_model", "tflite_float32"))
    assert saved_model["passed"]
    assert entry["passed"], entry["reason"]
    assert 0 < entry["parity"]["max_relative_difference"] <= 1e-5
    assert entry["parity"]["rows"] == 200
    assert entry["size_bytes"] == (plain.folder / "tflite_float32" / entry["file"]).stat().st_size
    assert entry["mae"] == pytest.approx(saved_model["mae"], rel=1e-5)
    for name in ("cold_start_ms", "latency_us", "rows_per_second"):
        assert entry[name] > 0
        assert saved_model[name] > 0
    assert plain.artifact.get_string_custom_property("formats") == (
        f"SavedModel {saved_model['size_bytes'] / 1024:,.0f} kB, LiteRT float32 {entry['size_bytes'] / 1024:,.0f} kB; "
        "edge: blessed"
    )
    assert json.loads(plain.artifact.get_string_custom_property("parity")) == plain.report


def test_golden_rows_are_kept_with_the_answers_of_the_saved_model(plain: Any, exported: Any) -> None:
    from bike_pipeline.modeling.loaded_model import LoadedModel

    kept = json.loads((plain.folder / "golden.json").read_text())
    expected = golden_rows(200)
    for name, values in kept["columns"].items():
        assert (np.asarray(values, expected[name].dtype) == expected[name]).all()
    assert (np.asarray(kept["cnt"], np.float32) == LoadedModel(exported.path).predict(expected)).all()
    assert plain.report["golden"]["rows"] == 200


def test_a_format_that_answers_a_broken_sensor_with_a_number_does_not_pass(world: World) -> None:
    found = world.export("invents", "tflite_float32")
    entry = found.report["formats"]["invents"]
    assert not entry["passed"]
    assert entry["reason"] == "it answers 0 where temp is nan, instead of NaN"
    assert entry["parity"]["max_relative_difference"] == 0
    assert found.report["formats"]["tflite_float32"]["passed"]


def test_rows_of_a_broken_sensor_are_kept_beside_the_golden_rows_in_plain_json(plain: Any) -> None:
    def refused(name: str) -> float:
        raise AssertionError(f"{name} is not JSON")

    kept = json.loads((plain.folder / "golden.json").read_text(), parse_constant=refused)
    broken = broken_rows()
    for name, values in kept["not_finite"]["columns"].items():
        assert np.array_equal(np.asarray(values, broken[name].dtype), broken[name], equal_nan=True)
    assert {value for value in kept["not_finite"]["columns"]["hum"] if isinstance(value, str)} == {
        "NaN", "Infinity", "-Infinity",
    }  # fmt: skip
    assert plain.report["golden"]["not_finite_rows"] == len(broken["hum"])
    columns, answers = read_golden(plain.folder / "golden.json")
    assert np.isnan(answers).sum() == len(broken["hum"])
    assert {name: len(values) for name, values in columns.items()} == dict.fromkeys(broken, len(answers))


def test_a_model_that_answers_a_broken_sensor_itself_is_not_exported(world: World, exported: Any) -> None:
    """As models of earlier releases do: their clipping makes a hot day of infinity."""
    import tensorflow as tf

    from bike_pipeline import features

    loaded = tf.saved_model.load(str(exported.path))

    class Earlier(tf.Module):
        @tf.function(input_signature=[input_signature(features.REQUIRED_INPUTS)])
        def predict(self, raw):
            finite = {n: tf.clip_by_value(v, -9, 9) if v.dtype == tf.float32 else v for n, v in raw.items()}
            return loaded.signatures["serving_default"](**finite)

    earlier = Earlier()
    earlier.loaded = loaded
    extra = {path: (world.saved_model / "assets.extra" / path).read_bytes() for path in ("hourly_mean.json",)}
    shutil.rmtree(world.saved_model)
    without_gradients = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(earlier, str(world.saved_model), {"serving_default": earlier.predict}, without_gradients)
    (world.saved_model / "assets.extra").mkdir()
    for name, content in extra.items():
        (world.saved_model / "assets.extra" / name).write_bytes(content)
    with pytest.raises(ExportError, match=r"the SavedModel answers \S+ where temp is inf, instead of NaN") as raised:
        world.export("tflite_float32")
    assert "run the pipeline" in raised.value.fix


def test_the_errors_are_those_on_the_labels_of_the_eval_split(plain: Any, exported: Any, store_uri: str) -> None:
    from bike_pipeline import features
    from bike_pipeline.data.past_weather import with_optional_inputs
    from bike_pipeline.data.spans import SpanStore
    from bike_pipeline.modeling.loaded_model import LoadedModel

    rows = with_optional_inputs(SpanStore(store_uri).read(2, 1, ("eval",)), SpanStore(store_uri).read(2, 1, ("train",)))
    columns = {f.name: rows[f.name].to_numpy() for f in features.MODEL_INPUTS}
    error = LoadedModel(exported.path).predict(columns) - rows[features.LABEL].to_numpy().astype(np.float64)
    report = plain.report
    assert report["eval_rows"] == len(error)
    assert report["formats"]["saved_model"]["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-6)
    assert report["formats"]["saved_model"]["rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-6)


def test_a_library_that_crashes_costs_its_own_format_and_says_how(world: World) -> None:
    found = world.export("dies_exporting", "dies_answering", "writes_nothing", "no_number")
    entries = found.report["formats"]
    assert {name: entry["passed"] for name, entry in entries.items()} == {
        "saved_model": True, "dies_exporting": False, "dies_answering": False, "writes_nothing": False,
        "no_number": False,
    }  # fmt: skip
    assert "the process ended of SIGSEGV" in entries["dies_exporting"]["reason"]
    assert "the process ended of SIGABRT (corrupted double-linked list)" in entries["dies_answering"]["reason"]
    assert entries["writes_nothing"]["reason"] == "it wrote no model.bin"
    assert "an answer is not a number" in entries["no_number"]["reason"]
    assert entries["no_number"]["parity"]["max_difference"] is None
    assert "NOT: " in found.artifact.get_string_custom_property("formats")


def test_a_missing_extra_says_what_to_install_and_the_run_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_quantizer", None)
    entries = world.export("tflite_int8", "tflite_float32").report["formats"]
    assert not entries["tflite_int8"]["passed"]
    assert entries["tflite_int8"]["not_here"]
    assert "needs the extra 'exports'" in entries["tflite_int8"]["reason"]
    assert "make setup EXTRAS=exports" in entries["tflite_int8"]["reason"]
    assert entries["tflite_float32"]["passed"]


def test_litert_is_measured_where_tensorflow_was_never_imported(plain: Any, tmp_path: Path) -> None:
    from bike_pipeline.exporting import workers

    asked = golden_rows(200)
    for name in (workers.GOLDEN, workers.EVALUATED):
        workers.write_columns(tmp_path, name, asked)
    source, seen = Source(Path(), {}, shared=tmp_path), {}
    with workers.Workers(tmp_path, 300) as process:
        for name in ("tflite_float32", "saved_model"):
            process.submit(name, "measure", registry.format_of(name), plain.folder / name, source)
        for name in ("saved_model", "tflite_float32"):
            seen[name] = process.result(name)["tensorflow"]
    assert seen == {"tflite_float32": False, "saved_model": True}


def test_one_saved_model_in_memory_serves_the_reference_and_every_conversion(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    loads = []
    load = tf.saved_model.load
    monkeypatch.setattr(tf.saved_model, "load", lambda *args, **options: loads.append(args) or load(*args, **options))
    report = world.export("tflite_float32", "tflite_float16", "tflite_dynamic_range", "c_source").report
    assert all(entry["passed"] for entry in report["formats"].values())
    assert len(loads) == 1


def test_a_format_that_never_ends_is_ended(world: World) -> None:
    entry = world.export("hangs", timeout=0.3).report["formats"]["hangs"]
    assert not entry["passed"]
    assert "did not end within 0.3 s" in entry["reason"]


def test_what_a_format_may_lose_depends_on_what_its_numbers_are_kept_in(world: World) -> None:
    entries = world.export("slightly_off", "int8_off").report["formats"]
    assert not entries["slightly_off"]["passed"]
    assert "0.0001 on golden row" in entries["slightly_off"]["reason"]
    assert "at most 1e-05" in entries["slightly_off"]["reason"]
    assert entries["int8_off"]["passed"], entries["int8_off"]["reason"]
    assert entries["int8_off"]["parity"] == entries["slightly_off"]["parity"]
    # What weathersit's slices lose does not decide: none of them has 10,000 rows.
    assert not entries["int8_off"]["worst_slice"].startswith("weather")


def test_the_worst_slice_decides_too(world: World) -> None:
    tight = world.export("int8_off", max_mae_increase=0.99, max_slice_mae_increase=1e-9).report["formats"]["int8_off"]
    assert not tight["passed"]
    assert tight["worst_slice"] in tight["reason"]
    few = dict.fromkeys(MIN_ROWS, 10000)
    shutil.rmtree(world.folder / "exports")
    unbound = world.export("int8_off", max_mae_increase=0.99, max_slice_mae_increase=1e-9, min_rows=few)
    assert unbound.report["formats"]["int8_off"]["passed"]
    assert unbound.report["formats"]["int8_off"]["worst_slice_mae_increase"] is None


def test_a_model_that_is_not_blessed_is_not_exported(world: World) -> None:
    found = world.export("tflite_float32", blessed=False)
    assert found.report["formats"] == {}
    assert found.report["reason"] == "the model is not blessed: nothing is exported"
    assert found.artifact.get_string_custom_property("formats") == found.report["reason"]
    assert {path.name for path in found.folder.iterdir()} == {"parity.json", "NOT_BLESSED"}


def test_without_the_saved_model_there_is_nothing_to_hold_others_against(world: World) -> None:
    (world.saved_model / "saved_model.pb").write_bytes(b"broken")
    with pytest.raises(ExportError, match="the SavedModel itself cannot be exported"):
        world.export("tflite_float32")


def test_a_format_that_nobody_installed_is_named_before_anything_runs(tmp_path: Path) -> None:
    from bike_pipeline.pipeline import create_pipeline

    settings = load_settings(assignments=(f"workspace={tmp_path}", "exporting.formats=[saved_model, caffe2]"))
    with pytest.raises(ConfigurationError, match=r"exporting\.formats: there is no export format 'caffe2'"):
        create_pipeline(settings)


def test_two_measurements_of_the_same_exports_are_the_same_exports(world: World) -> None:
    versions = []
    for number in range(2):
        found = world.export("tflite_float32")
        version = world.folder / f"version-{number}"
        shutil.copytree(world.saved_model, version)
        from bike_pipeline.exporting.acceptance import report

        report.add_to_version(found.folder, version)
        versions.append(version)
        shutil.rmtree(found.folder)
    first, second = versions
    assert (first / "assets.extra/exports/parity.json").read_bytes() != (
        second / "assets.extra/exports/parity.json"
    ).read_bytes()
    assert layout.exports_fingerprint(first) == layout.exports_fingerprint(second) != ""
    assert layout.fingerprint(first) == layout.fingerprint(world.saved_model)


@pytest.mark.parametrize("name", registry.names())
def test_every_format_of_the_product_has_what_the_tables_need(name: str) -> None:
    made = registry.format_of(name)
    assert made.title
    assert made.file
