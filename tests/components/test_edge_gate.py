"""What may go to devices is judged on the answers of the file itself."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from bike_pipeline.components.base import schema_of
from bike_pipeline.settings.evaluation import EvaluationSettings
from tests.components.evaluating import WIDE
from tests.components.exporting import World


@pytest.fixture
def world(tmp_path: Path, exported: Any, examples: Any, schema: Any) -> World:
    """The model with the product's own formats."""
    return World(tmp_path, exported.path, examples, schema)


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
