"""Every format of a blessed model is proven or kept back, and none of them takes the run down."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bike_pipeline.components import exporter
from bike_pipeline.components.base import schema_of
from bike_pipeline.errors import ConfigurationError, ExportError
from bike_pipeline.exporting.formats import registry
from bike_pipeline.exporting.formats.base import Source
from bike_pipeline.model_registry import layout
from bike_pipeline.modeling.golden import broken_rows, golden_rows, read_golden
from bike_pipeline.modeling.saved_model import input_signature
from bike_pipeline.settings import load_settings
from bike_pipeline.settings.evaluation import EvaluationSettings
from tests.components.test_blessing import EASY_BASELINE, WIDE
from tests.exporting import plugin

MIN_ROWS = {"hour_band": 10, "workingday": 10, "season": 10, "weathersit": 10_000}


class World:
    """One small model with its examples."""

    def __init__(self, folder: Path, saved_model: Path, examples: Any, schema: Any) -> None:
        """Copy the model, since tests change it."""
        from tfx.types import standard_artifacts

        self.folder = folder
        self.model = standard_artifacts.Model()
        self.model.uri, self.model.id = str(folder / "model"), 7
        self.saved_model = folder / "model" / "Format-Serving"
        shutil.copytree(saved_model, self.saved_model)
        (self.saved_model / "assets.extra" / "hourly_mean.json").write_text(json.dumps(EASY_BASELINE))
        self.inputs = {"examples": [examples], "schema": [schema], "model": [self.model]}

    def export(
        self,
        *formats: str,
        blessed: bool = True,
        min_rows: dict[str, int] = MIN_ROWS,
        value_thresholds: Any = WIDE["value_thresholds"],
        **changes: Any,
    ) -> Any:
        """Run the Exporter; return its report, its folder and its artifact."""
        from tfx.types import standard_artifacts

        blessing = standard_artifacts.ModelBlessing()
        blessing.set_int_custom_property("blessed", int(blessed))
        output = exporter.Exports()
        output.uri = str(self.folder / "exports" / "-".join(formats))
        evaluation = EvaluationSettings.model_validate(
            {**WIDE, "min_rows": min_rows, "value_thresholds": value_thresholds}
        )
        settings = load_settings().exporting.model_copy(
            update={"formats": ("saved_model", *formats), "golden_rows": 200, "calibration_rows": 50, **changes}
        )
        exporter.ExporterExecutor().Do(
            {**self.inputs, "model_blessing": [blessing]},
            {"exports": [output]},
            {"exporting": settings.model_dump_json(), "evaluation": evaluation.model_dump_json()},
        )
        report = json.loads((Path(output.uri) / "parity.json").read_text())
        return SimpleNamespace(report=report, folder=Path(output.uri), artifact=output)


@pytest.fixture
def world(tmp_path: Path, exported: Any, examples: Any, schema: Any, monkeypatch: pytest.MonkeyPatch) -> World:
    """The model, with the formats of a plug-in package installed beside ours."""
    plugin.install(tmp_path / "installed")
    monkeypatch.syspath_prepend(tmp_path / "installed")
    return World(tmp_path, exported.path, examples, schema)


def test_a_format_that_answers_alike_is_measured_and_passes(world: World) -> None:
    found = world.export("tflite_float32")
    assert found.report["blessed"]
    assert found.report["model_id"] == 7
    saved_model, entry = (found.report["formats"][name] for name in ("saved_model", "tflite_float32"))
    assert saved_model["passed"]
    assert entry["passed"], entry["reason"]
    assert 0 < entry["parity"]["max_relative_difference"] <= 1e-5
    assert entry["parity"]["rows"] == 200
    assert entry["size_bytes"] == (found.folder / "tflite_float32" / entry["file"]).stat().st_size
    assert entry["mae"] == pytest.approx(saved_model["mae"], rel=1e-5)
    for name in ("cold_start_ms", "latency_us", "rows_per_second"):
        assert entry[name] > 0
        assert saved_model[name] > 0
    assert found.artifact.get_string_custom_property("formats") == (
        f"SavedModel {saved_model['size_bytes'] / 1024:,.0f} kB, LiteRT float32 {entry['size_bytes'] / 1024:,.0f} kB; "
        "edge: blessed"
    )
    assert json.loads(found.artifact.get_string_custom_property("parity")) == found.report


def test_golden_rows_are_kept_with_the_answers_of_the_saved_model(world: World, exported: Any) -> None:
    from bike_pipeline.modeling.loaded_model import LoadedModel

    found = world.export()
    kept = json.loads((found.folder / "golden.json").read_text())
    expected = golden_rows(200)
    for name, values in kept["columns"].items():
        assert (np.asarray(values, expected[name].dtype) == expected[name]).all()
    assert (np.asarray(kept["cnt"], np.float32) == LoadedModel(exported.path).predict(expected)).all()
    assert found.report["golden"]["rows"] == 200


def test_a_format_that_answers_a_broken_sensor_with_a_number_does_not_pass(world: World) -> None:
    found = world.export("invents", "tflite_float32")
    entry = found.report["formats"]["invents"]
    assert not entry["passed"]
    assert entry["reason"] == "it answers 0 where temp is nan, instead of NaN"
    assert entry["parity"]["max_relative_difference"] == 0
    assert found.report["formats"]["tflite_float32"]["passed"]


def test_rows_of_a_broken_sensor_are_kept_beside_the_golden_rows_in_plain_json(world: World) -> None:
    def refused(name: str) -> float:
        raise AssertionError(f"{name} is not JSON")

    found = world.export("tflite_float32")
    kept = json.loads((found.folder / "golden.json").read_text(), parse_constant=refused)
    broken = broken_rows()
    for name, values in kept["not_finite"]["columns"].items():
        assert np.array_equal(np.asarray(values, broken[name].dtype), broken[name], equal_nan=True)
    assert {value for value in kept["not_finite"]["columns"]["hum"] if isinstance(value, str)} == {
        "NaN", "Infinity", "-Infinity",
    }  # fmt: skip
    assert found.report["golden"]["not_finite_rows"] == len(broken["hum"])
    columns, answers = read_golden(found.folder / "golden.json")
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
    tf.saved_model.save(earlier, str(world.saved_model), {"serving_default": earlier.predict})
    (world.saved_model / "assets.extra").mkdir()
    for name, content in extra.items():
        (world.saved_model / "assets.extra" / name).write_bytes(content)
    with pytest.raises(ExportError, match=r"the SavedModel answers \S+ where temp is inf, instead of NaN") as raised:
        world.export("tflite_float32")
    assert "run the pipeline" in raised.value.fix


def test_the_errors_are_those_on_the_labels_of_the_eval_split(world: World, exported: Any, store_uri: str) -> None:
    from bike_pipeline import features
    from bike_pipeline.data.past_weather import with_optional_inputs
    from bike_pipeline.data.spans import SpanStore
    from bike_pipeline.modeling.loaded_model import LoadedModel

    rows = with_optional_inputs(SpanStore(store_uri).read(2, 1, ("eval",)), SpanStore(store_uri).read(2, 1, ("train",)))
    columns = {f.name: rows[f.name].to_numpy() for f in features.MODEL_INPUTS}
    error = LoadedModel(exported.path).predict(columns) - rows[features.LABEL].to_numpy().astype(np.float64)
    report = world.export().report
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


def test_litert_is_measured_where_tensorflow_was_never_imported(world: World, tmp_path: Path) -> None:
    from bike_pipeline.exporting import workers

    found = world.export("tflite_float32")
    asked = golden_rows(200)
    for name in (workers.GOLDEN, workers.EVALUATED):
        workers.write_columns(tmp_path, name, asked)
    source, seen = Source(Path(), {}, shared=tmp_path), {}
    with workers.Workers(tmp_path, 300) as process:
        for name in ("tflite_float32", "saved_model"):
            process.submit(name, "measure", registry.format_of(name), found.folder / name, source)
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


def test_the_edge_gate_is_tfmas_on_the_answers_of_the_file_itself(world: World) -> None:
    import tensorflow_model_analysis as tfma

    found = world.export("tflite_float32", "tflite_dynamic_range")
    gate = found.report["edge_gate"]
    assert gate["blessed"], gate["reason"]
    assert gate["format"] == "tflite_float32"
    assert set(found.report["edge_gates"]) == {"tflite_float32", "tflite_dynamic_range"}
    for name in found.report["edge_gates"]:
        folder = found.folder / "tfma" / name
        assert tfma.load_validation_result(str(folder)).validation_ok
        config = tfma.load_eval_result(str(folder), model_name="candidate").config
        assert {(spec.name, spec.model_type) for spec in config.model_specs} == {
            ("candidate", "tf_lite"), ("baseline", "tf_generic"),
        }  # fmt: skip
        (overall,) = (
            value
            for key, values in tfma.load_eval_result(str(folder), model_name="candidate").slicing_metrics
            if key == ()
            for value in (values[""][""]["mae"]["doubleValue"],)
        )
        assert overall == pytest.approx(found.report["formats"][name]["mae"])
    assert found.artifact.get_int_custom_property("edge_blessed") == 1


def test_what_serves_well_may_still_not_go_to_devices(world: World) -> None:
    passing = world.export("tflite_float32").report["formats"]["tflite_float32"]
    limits = [{**limit, "upper": passing["mae"] * 0.9} if limit["metric"] == "mae" else limit
              for limit in WIDE["value_thresholds"]]  # fmt: skip
    shutil.rmtree(world.folder / "exports")
    found = world.export("tflite_float32", value_thresholds=limits)
    assert found.report["formats"]["tflite_float32"]["passed"]
    assert not found.report["edge_gate"]["blessed"]
    assert found.report["edge_gate"]["reason"].startswith("mae, overall: ")
    assert found.artifact.get_string_custom_property("edge_reason") == found.report["edge_gate"]["reason"]
    assert "edge: NOT blessed, mae" in found.artifact.get_string_custom_property("formats")


def test_without_a_litert_format_nothing_goes_to_devices(world: World) -> None:
    report = world.export().report
    assert report["edge_gate"] == {"blessed": False, "format": "", "reason": "no LiteRT format was exported"}


@pytest.mark.slow
def test_the_files_errors_are_those_that_tfma_measures_by_itself(world: World) -> None:
    """TFMA's own model type `tf_lite` on Beam, on the same file and rows: the same metrics in every slice."""
    import apache_beam as beam
    import tensorflow_model_analysis as tfma
    from tfx_bsl.tfxio import tf_example_record

    from benchmarks.plain_tfx.module import custom_extractors
    from bike_pipeline.modeling import evaluation

    found = world.export("tflite_dynamic_range")
    config = evaluation.eval_config(EvaluationSettings.model_validate({**WIDE, "change_thresholds": [
        {"metric": metric, "max_increase": 0.5} for metric in ("mae", "rmse")]}))  # fmt: skip
    del config.model_specs[:]
    config.model_specs.add(name="", model_type="tf_lite", label_key="cnt", signature_name="serving_default")
    for spec in config.metrics_specs:
        for metric in spec.metrics:
            for threshold in metric.per_slice_thresholds:
                threshold.threshold.ClearField("change_threshold")
    (examples,) = world.inputs["examples"]
    # The name that TFMA looks for.
    renamed = world.folder / "renamed"
    renamed.mkdir()
    shutil.copyfile(found.folder / "tflite_dynamic_range" / "model.tflite", renamed / "tflite")
    shared = tfma.default_eval_shared_model(str(renamed), eval_config=config)
    files = sorted(str(path) for path in (Path(examples.uri) / "Split-eval").glob("*"))
    assert files
    schema = schema_of(world.inputs)
    source = tf_example_record.TFExampleRecord(files, schema=schema, raw_record_column_name=tfma.ARROW_INPUT_COLUMN)
    output = str(world.folder / "stock")
    with beam.Pipeline(argv=["--runner=FnApiRunner", "--no_pipeline_type_check"]) as pipeline:
        _ = (
            pipeline
            | source.BeamSource()
            | tfma.ExtractEvaluateAndWriteResults(
                eval_shared_model=shared,
                eval_config=config,
                output_path=output,
                extractors=custom_extractors(shared, config, source.TensorAdapterConfig()),
                tensor_adapter_config=source.TensorAdapterConfig(),
            )
        )
    stock = evaluation.read_metrics(output, "candidate")
    ours = evaluation.read_metrics(str(found.folder / "tfma" / "tflite_dynamic_range"), "candidate")
    assert ours.keys() == stock.keys()
    for key, values in stock.items():
        assert ours[key] == pytest.approx(values, rel=1e-4), key
