"""ONNX and OpenVINO: the whole graph in other runtimes, float32 and int8."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bike_pipeline import features
from bike_pipeline.errors import ExportError, MissingExtraError
from bike_pipeline.exporting.acceptance.parity import compare
from bike_pipeline.exporting.formats import onnx as onnx_format
from bike_pipeline.exporting.formats.base import Source
from bike_pipeline.exporting.formats.registry import format_of
from bike_pipeline.settings import load_settings

# tf2onnx and NNCF take seconds each.
pytestmark = pytest.mark.slow

FLOATS = ("onnx_float32", "openvino_float32")
INT8 = ("onnx_int8", "openvino_int8")
WRITTEN = {
    "onnx_float32": ["model.onnx", "tensorrt.json", "trtexec.sh"],
    "onnx_int8": ["model.onnx"],
    "openvino_float32": ["model.bin", "model.xml"],
    "openvino_int8": ["model.bin", "model.xml"],
}


@pytest.fixture(scope="module")
def folders(full_size: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for name in (*FLOATS, *INT8):
        made[name] = tmp_path_factory.mktemp(name)
        format_of(name).export(full_size.source, made[name])
    return made


@pytest.mark.parametrize("name", FLOATS)
def test_float_formats_answer_as_the_saved_model_does(name: str, full_size: Any, folders: dict[str, Path]) -> None:
    found = format_of(name)
    parity = compare(full_size.answers, found.load(folders[name]).predict(full_size.golden))
    assert parity.rows == 1_000
    assert parity.max_relative_difference <= 1e-5


@pytest.mark.parametrize("name", INT8)
def test_int8_loses_hardly_anything_on_labels(name: str, full_size: Any, folders: dict[str, Path]) -> None:
    label = full_size.rows[features.LABEL]
    loaded = format_of(name).load(folders[name])
    increase = np.abs(loaded.predict(full_size.rows) - label).mean() / np.abs(full_size.predicted - label).mean() - 1.0
    assert increase <= load_settings().exporting.max_mae_increase
    # Something was quantized, and golden rows are not far off for it.
    assert 1e-4 < compare(full_size.answers, loaded.predict(full_size.golden)).wape < 0.03


@pytest.mark.parametrize("name", [*FLOATS, *INT8])
def test_any_number_of_rows_gets_the_same_answers(name: str, full_size: Any, folders: dict[str, Path]) -> None:
    loaded, golden = format_of(name).load(folders[name]), full_size.golden
    whole = loaded.predict(golden)
    parts = [loaded.predict({n: v[a:b] for n, v in golden.items()}) for a, b in ((0, 1), (1, 3), (3, 1_000))]
    assert whole.dtype == np.float32
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-4)
    np.testing.assert_allclose(loaded.predict({n: np.tile(v, 5) for n, v in golden.items()}), np.tile(whole, 5), 1e-4)


def test_the_onnx_file_takes_raw_features_in_one_batch_of_any_size(folders: dict[str, Path]) -> None:
    import onnx

    model = onnx.load(folders["onnx_float32"] / "model.onnx")
    kinds = {"int": onnx.TensorProto.INT64, "float": onnx.TensorProto.FLOAT}
    taken = {i.name: i.type.tensor_type for i in model.graph.input}
    assert {n: t.elem_type for n, t in taken.items()} == {f.name: kinds[f.kind] for f in features.MODEL_INPUTS}
    assert {d.dim_param for t in taken.values() for d in t.shape.dim} == {"batch"}
    assert [o.name for o in model.graph.output] == [features.LABEL]
    assert [entry.version for entry in model.opset_import if not entry.domain] == [18]


def test_the_large_layers_of_the_int8_onnx_file_are_int8(folders: dict[str, Path]) -> None:
    import onnx

    plain, quantized = (onnx.load(folders[n] / "model.onnx") for n in ("onnx_float32", "onnx_int8"))
    kept = {
        tuple(w.dims) for w in quantized.graph.initializer if w.data_type == onnx.TensorProto.INT8 and len(w.dims) > 1
    }
    assert kept == {(66, 224), (224, 128), (184, 8)}
    # Every runtime of ONNX knows its operators.
    assert {node.domain for node in quantized.graph.node} == {""}
    assert len(quantized.SerializeToString()) < len(plain.SerializeToString())


@pytest.mark.parametrize("name", [*FLOATS, *INT8])
def test_the_files_name_no_path_of_the_machine_and_nothing_else_is_left(
    name: str, full_size: Any, folders: dict[str, Path]
) -> None:
    written = sorted(folders[name].iterdir())
    assert [path.name for path in written] == WRITTEN[name]
    for path in written:
        assert str(full_size.source.saved_model).encode() not in path.read_bytes()
        assert str(folders[name]).encode() not in path.read_bytes()


def test_an_unsupported_operator_is_named_with_its_layer_though_tf2onnx_exits_with_0(
    hashing: Source, tmp_path: Path
) -> None:
    with pytest.raises(ExportError) as caught:
        format_of("onnx_float32").export(hashing, tmp_path)
    assert "StringToHashBucketFast in layer hash_temp" in caught.value.what
    assert "Betainc in layer beta_2" in caught.value.what
    assert list(tmp_path.iterdir()) == []


def test_a_converter_that_writes_nothing_is_an_error(
    full_size: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        onnx_format.subprocess,
        "run",
        lambda *_, **__: subprocess.CompletedProcess((), 0, "", "some words\nout of ideas"),
    )
    with pytest.raises(ExportError, match="out of ideas"):
        format_of("onnx_float32").export(replace(full_size.source, shared=None), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_formats_of_other_processes_begin_with_the_file_that_is_there(
    full_size: Any, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def converted_again(*_: Any) -> bytes:
        raise AssertionError("converted again")

    monkeypatch.setattr(onnx_format, "_converted", converted_again)
    format_of("onnx_float32").export(full_size.source, tmp_path)
    assert (tmp_path / "model.onnx").read_bytes() == (folders["onnx_float32"] / "model.onnx").read_bytes()


@pytest.mark.parametrize("name", INT8)
def test_a_model_without_large_layers_is_not_said_to_be_quantized(name: str, linear: Source, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="nothing to quantize"):
        format_of(name).export(linear, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [*FLOATS, *INT8])
def test_a_broken_file_is_one_clear_error(name: str, tmp_path: Path) -> None:
    for file in ("model.onnx", "model.xml", "model.bin"):
        (tmp_path / file).write_bytes(b"no model at all")
    with pytest.raises(ExportError, match="cannot load it"):
        format_of(name).load(tmp_path)


def test_a_graph_without_its_weights_is_one_clear_error(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "model.xml").write_bytes((folders["openvino_float32"] / "model.xml").read_bytes())
    with pytest.raises(ExportError, match=r"model\.bin is missing"):
        format_of("openvino_float32").load(tmp_path)


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [("onnx_float32", "tf2onnx", "exports"), ("onnx_int8", "onnxruntime", "exports"),
     ("openvino_float32", "openvino", "openvino"), ("openvino_int8", "nncf", "openvino"),
     ("openvino_float32", "tf2onnx", "exports")],
)  # fmt: skip
def test_without_the_extra_the_error_says_what_to_install(
    name: str, module: str, extra: str, full_size: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=f"EXTRAS={extra}"):
        format_of(name).export(full_size.source, tmp_path)
