"""The files run without TensorFlow, in a process of their own, and answer what the SavedModel does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bike_pipeline import features
from bike_pipeline.errors import ExportError, MissingExtraError
from bike_pipeline.exporting.acceptance.parity import compare
from bike_pipeline.exporting.formats.base import ROWS_PER_END, Source, with_extremes
from bike_pipeline.exporting.formats.registry import format_of
from bike_pipeline.settings import load_settings

FORMATS = ("tflite_float32", "tflite_float16", "tflite_dynamic_range", "tflite_int8")
# Weights of the trunk's two layers, and of what it sees of 184 knots.
LARGE = {66 * 224, 224 * 128, 184 * 8}
# What a device does: it has the runtime and numpy, and TensorFlow can be neither imported nor needed.
DEVICE = """
import json, sys
sys.modules["tensorflow"] = None
import numpy as np
from pathlib import Path
from bike_pipeline.exporting.formats.registry import format_of
golden = dict(np.load(sys.argv[1]))
found = {}
for folder in map(Path, sys.argv[2:]):
    loaded = format_of(folder.name).load(folder)
    whole = loaded.predict(golden)
    many = loaded.predict({name: np.tile(values, 20) for name, values in golden.items()})
    parts = [loaded.predict({n: v[a:b] for n, v in golden.items()}) for a, b in ((0, 1), (1, 2), (2, 9), (9, 1000))]
    again = loaded.predict({name: values[:1] for name, values in golden.items()})
    found[folder.name] = {"whole": whole.tolist(), "many": many.tolist(), "again": again.tolist(),
                          "parts": np.concatenate(parts).tolist(), "type": str(whole.dtype)}
imported = sorted(m for m in sys.modules if m.split(".")[0] in ("tensorflow", "keras") and sys.modules[m] is not None)
print(json.dumps({"found": found, "imported": imported}))
"""


@pytest.fixture(scope="module")
def files(full_size: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tflite")
    made = {}
    for name in FORMATS:
        made[name] = folder / name
        made[name].mkdir()
        format_of(name).export(full_size.source, made[name])
    return made


@pytest.fixture(scope="module")
def on_a_device(full_size: Any, files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    rows = tmp_path_factory.mktemp("rows") / "golden.npz"
    np.savez(rows, **full_size.golden)
    done = subprocess.run(
        [sys.executable, "-c", DEVICE, str(rows), *map(str, files.values())],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_no_tensorflow_is_imported_to_answer(on_a_device: dict[str, Any]) -> None:
    assert on_a_device["imported"] == []
    assert set(on_a_device["found"]) == set(FORMATS)


@pytest.mark.parametrize("name", FORMATS)
def test_any_number_of_rows_gets_the_same_answers(name: str, on_a_device: dict[str, Any]) -> None:
    found = on_a_device["found"][name]
    whole = np.asarray(found["whole"])
    assert found["type"] == "float32"
    assert len(found["many"]) == 20_000
    # A range of its own for each row or batch is what dynamic quantization is about.
    tolerance = 1e-5 if name != "tflite_int8" else 1e-4
    np.testing.assert_allclose(found["parts"], whole, rtol=tolerance)
    np.testing.assert_allclose(found["many"], np.tile(whole, 20), rtol=tolerance)
    np.testing.assert_allclose(found["again"], whole[:1], rtol=tolerance)


def test_the_float32_file_answers_as_the_saved_model_does(full_size: Any, on_a_device: dict[str, Any]) -> None:
    answers = np.asarray(on_a_device["found"]["tflite_float32"]["whole"], np.float32)
    assert compare(full_size.answers, answers).max_relative_difference <= 1e-5


@pytest.mark.parametrize(
    ("name", "most"), [("tflite_float16", 0.002), ("tflite_dynamic_range", 0.03), ("tflite_int8", 0.03)]
)
def test_smaller_numbers_stay_close_on_golden_rows(
    name: str, most: float, full_size: Any, on_a_device: dict[str, Any]
) -> None:
    found = compare(full_size.answers, np.asarray(on_a_device["found"][name]["whole"], np.float32))
    assert 0 < found.wape < most


@pytest.mark.parametrize("name", FORMATS)
def test_hardly_anything_is_lost_on_labels(name: str, full_size: Any, files: dict[str, Path]) -> None:
    label = full_size.rows[features.LABEL]
    answers = format_of(name).load(files[name]).predict(full_size.rows)
    increase = np.abs(answers - label).mean() / np.abs(full_size.predicted - label).mean() - 1.0
    assert increase <= load_settings().exporting.max_mae_increase


def test_the_files_are_as_small_as_promised(files: dict[str, Path]) -> None:
    sizes = {name: (folder / "model.tflite").stat().st_size for name, folder in files.items()}
    assert sizes["tflite_float32"] <= 400_000
    assert sizes["tflite_float16"] < 0.75 * sizes["tflite_float32"]
    assert max(sizes["tflite_int8"], sizes["tflite_dynamic_range"]) <= 280_000


@pytest.mark.parametrize("name", FORMATS)
def test_builtin_operators_raw_numbers_in_and_float_out(name: str, files: dict[str, Path]) -> None:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf((files[name] / "model.tflite").read_bytes(), 0)
    assert [code.customCode for code in model.operatorCodes if code.customCode] == []
    graph = model.subgraphs[0]
    kinds = {schema.TensorType.INT64, schema.TensorType.FLOAT32}
    assert {graph.tensors[index].type for index in graph.inputs} == kinds
    assert [graph.tensors[index].type for index in graph.outputs] == [schema.TensorType.FLOAT32]


def test_the_large_layers_of_the_int8_file_compute_in_int8(files: dict[str, Path]) -> None:
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf((files["tflite_int8"] / "model.tflite").read_bytes(), 0)
    graph, dense = model.subgraphs[0], schema.BuiltinOperator.FULLY_CONNECTED
    kinds = {}
    for operator in graph.operators:
        if model.operatorCodes[operator.opcodeIndex].builtinCode == dense:
            tensors = [graph.tensors[index] for index in operator.inputs[:2]]
            kinds[int(np.prod(tensors[1].shape))] = [tensor.type for tensor in tensors]
    int8, float32 = schema.TensorType.INT8, schema.TensorType.FLOAT32
    assert {size for size, types in kinds.items() if types == [int8, int8]} == LARGE
    assert {size for size, types in kinds.items() if types == [float32, float32]} == {2 * 128, 184}


def test_a_model_without_large_layers_is_not_said_to_be_quantized(linear: Source, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="nothing to quantize"):
        format_of("tflite_int8").export(linear, tmp_path)


def test_without_the_quantizer_the_error_says_what_to_install(
    full_size: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_quantizer", None)
    with pytest.raises(MissingExtraError, match="EXTRAS=exports"):
        format_of("tflite_int8").export(full_size.source, tmp_path)


@pytest.mark.parametrize("content", [b"", b"no model at all"])
def test_a_broken_file_is_one_clear_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(content)
    with pytest.raises(ExportError, match="LiteRT cannot load it"):
        format_of("tflite_float32").load(tmp_path)


def test_an_unsupported_operator_is_named_with_its_layer(hashing: Source, tmp_path: Path) -> None:
    with pytest.raises(ExportError) as caught:
        format_of("tflite_float32").export(hashing, tmp_path)
    assert "StringToHashBucketFast in layer hash_temp" in caught.value.what
    assert "Betainc in layer beta_2" in caught.value.what
    assert list(tmp_path.iterdir()) == []


def test_calibration_rows_hold_both_ends_of_every_feature(few_rows: dict[str, Any]) -> None:
    rows = {f.name: few_rows[f.name][:50] for f in features.MODEL_INPUTS}
    extended = with_extremes(rows)
    for feature in features.MODEL_INPUTS:
        values = extended[feature.name]
        assert values.dtype == rows[feature.name].dtype
        assert len(values) == 50 + 2 * ROWS_PER_END * len(features.MODEL_INPUTS)
        assert (values[:50] == rows[feature.name]).all()
        assert feature.minimum is not None
        assert feature.minimum in values
        # What is not known stands below the range of an optional input.
        assert values.min() in (feature.minimum, feature.default)
        assert values.max() == (feature.maximum or 4)
