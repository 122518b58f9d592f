"""TensorRT needs a GPU, which no test machine has: its recipe, its refusals, and its calls against a stand-in.

The stand-in has the names of TensorRT's and CUDA's Python bindings, keeps "GPU memory" in this process, and answers by
ONNX Runtime. It shows that rows, types and answers get where they belong, and nothing about TensorRT itself.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bike_pipeline import features
from bike_pipeline.errors import ExportError, MissingExtraError
from bike_pipeline.exporting.acceptance.parity import compare
from bike_pipeline.exporting.formats import tensorrt as tensorrt_format
from bike_pipeline.exporting.formats.registry import format_of


@pytest.fixture(scope="module")
def onnx_folder(full_size: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnx_float32")
    format_of("onnx_float32").export(full_size.source, folder)
    return folder


class _Stage:
    """TensorRT and CUDA in this process."""

    def __init__(self, refused: tuple[tuple[str, str], ...] = ()) -> None:
        self.refused = refused
        self.profile: dict[str, tuple[Any, ...]] = {}
        self.cleared: list[str] = []
        self.memory: dict[int, Any] = {}
        self.calls: list[int] = []

    def modules(self) -> dict[str, ModuleType]:
        tensorrt, cuda, bindings = ModuleType("tensorrt"), ModuleType("cuda"), ModuleType("cuda.bindings")
        runtime = ModuleType("cuda.bindings.runtime")
        for module in (tensorrt, cuda):
            module.__spec__ = SimpleNamespace(name=module.__name__)
        tensorrt.Logger = type("Logger", (), {"ERROR": 1, "__init__": lambda *_: None})
        tensorrt.BuilderFlag = SimpleNamespace(TF32="TF32")
        tensorrt.Builder = lambda _: self
        tensorrt.OnnxParser = lambda *_: self
        tensorrt.Runtime = lambda _: self
        runtime.cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
        runtime.cudaStreamCreate = lambda: (0, 7)
        runtime.cudaStreamSynchronize = lambda _: (0,)
        runtime.cudaMalloc = self._malloc
        runtime.cudaMemcpy = self._memcpy
        bindings.runtime = runtime
        return {"tensorrt": tensorrt, "cuda": cuda, "cuda.bindings": bindings, "cuda.bindings.runtime": runtime}

    # The builder, the network's parser and the configuration.
    def create_network(self, flags: int) -> _Stage:
        return self

    def parse_from_file(self, path: str) -> bool:
        self.content = Path(path).read_bytes()
        return not self.refused

    @property
    def num_errors(self) -> int:
        return len(self.refused)

    def get_error(self, index: int) -> Any:
        operator, node = self.refused[index]
        return SimpleNamespace(node_operator=lambda: operator, node_name=lambda: node)

    def create_builder_config(self) -> _Stage:
        return self

    def clear_flag(self, flag: str) -> None:
        self.cleared.append(flag)

    def create_optimization_profile(self) -> _Stage:
        return self

    def set_shape(self, name: str, low: Any, usual: Any, high: Any) -> None:
        self.profile[name] = (low, usual, high)

    def add_optimization_profile(self, profile: Any) -> None:
        assert profile is self

    def build_serialized_network(self, network: Any, config: Any) -> bytearray:
        return bytearray(self.content)

    # The engine and CUDA's runtime.
    def deserialize_cuda_engine(self, plan: bytes) -> Any:
        import onnxruntime

        if plan == b"another GPU's":
            return None
        self.session = onnxruntime.InferenceSession(plan)
        self.addresses: dict[str, int] = {}
        self.rows: dict[str, tuple[int, ...]] = {}
        return self

    @property
    def num_io_tensors(self) -> int:
        return len(self.session.get_inputs()) + len(self.session.get_outputs())

    def get_tensor_name(self, index: int) -> str:
        return [*self.session.get_inputs(), *self.session.get_outputs()][index].name

    def create_execution_context(self) -> _Stage:
        return self

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> None:
        assert self.profile[name][0] <= shape <= self.profile[name][2]
        self.rows[name] = shape

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == 7
        arrays = {}
        for feature in (features.BY_NAME[tensor.name] for tensor in self.session.get_inputs()):
            kind = np.int64 if feature.kind == "int" else np.float32
            buffer = self.memory[self.addresses[feature.name]]
            arrays[feature.name] = np.frombuffer(buffer, kind, count=self.rows[feature.name][0])
        answers = self.session.run([features.LABEL], arrays)[0]
        ctypes.memmove(self.addresses[features.LABEL], answers.ctypes.data, answers.nbytes)
        self.calls.append(len(answers))
        return True

    def _malloc(self, size: int) -> tuple[int, int]:
        buffer = ctypes.create_string_buffer(size)
        self.memory[ctypes.addressof(buffer)] = buffer
        return 0, ctypes.addressof(buffer)

    def _memcpy(self, target: int, source: int, size: int, kind: int) -> tuple[int]:
        ctypes.memmove(target, source, size)
        return (0,)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> _Stage:
    made = _Stage()
    for name, module in made.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(tensorrt_format, "_gpu_lacking", lambda: "")
    return made


def test_the_recipe_lies_beside_the_onnx_file(onnx_folder: Path) -> None:
    assert sorted(path.name for path in onnx_folder.iterdir()) == ["model.onnx", "tensorrt.json", "trtexec.sh"]
    config = json.loads((onnx_folder / "tensorrt.json").read_text())
    assert config["onnx"] == "model.onnx"
    assert config["tf32"] is False
    assert list(config["inputs"]) == [f.name for f in features.MODEL_INPUTS]
    assert config["rows"]["min"] == 1 < config["rows"]["opt"] < config["rows"]["max"]


def test_the_script_calls_trtexec_with_the_shapes_of_every_input(onnx_folder: Path, tmp_path: Path) -> None:
    program = tmp_path / "trtexec"
    program.write_text('#!/bin/sh\npwd\nfor word in "$@"; do echo "$word"; done\n')
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        [onnx_folder / "trtexec.sh"], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    place, *words = done.stdout.splitlines()
    assert Path(place) == onnx_folder.resolve()
    options = dict(word.partition("=")[::2] for word in words)
    assert options["--onnx"] == "model.onnx"
    assert options["--saveEngine"] == "model.plan"
    for name, rows in (("min", 1), ("opt", 1_024), ("max", 16_384)):
        assert options[f"--{name}Shapes"] == ",".join(f"{f.name}:{rows}" for f in features.MODEL_INPUTS)


def test_without_tensorrt_it_says_what_is_missing_and_builds_nothing(
    full_size: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt_format, "_is_there", lambda module: False)
    with pytest.raises(MissingExtraError, match="missing: tensorrt, cuda-python"):
        format_of("tensorrt").export(full_size.source, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_a_gpu_it_says_so_and_builds_nothing(
    full_size: Any, stage: _Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    for name, module in stage.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(tensorrt_format, "_DRIVER", "libno-such-driver.so.1")
    with pytest.raises(ExportError, match="no NVIDIA driver") as caught:
        format_of("tensorrt").export(full_size.source, tmp_path)
    assert "trtexec.sh" in caught.value.fix
    assert list(tmp_path.iterdir()) == []


def test_rows_and_answers_get_where_they_belong(full_size: Any, stage: _Stage, tmp_path: Path) -> None:
    found = format_of("tensorrt")
    found.export(full_size.source, tmp_path)
    assert stage.cleared == ["TF32"]
    assert set(stage.profile) == {f.name for f in features.MODEL_INPUTS}
    assert set(stage.profile.values()) == {((1,), (1_024,), (16_384,))}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "model.plan", "tensorrt.json", "trtexec.sh"]
    loaded = found.load(tmp_path)
    many = loaded.predict({name: np.tile(values, 20) for name, values in full_size.golden.items()})
    assert compare(np.tile(full_size.answers, 20), many).max_relative_difference <= 1e-5
    assert stage.calls == [16_384, 3_616]
    np.testing.assert_allclose(loaded.predict({n: v[:1] for n, v in full_size.golden.items()}), many[:1], rtol=1e-5)


def test_an_operator_that_tensorrt_lacks_is_named_with_its_layer(full_size: Any, stage: _Stage, tmp_path: Path) -> None:
    stage.refused = (("Sigmoid", "StatefulPartitionedCall/bike_demand_1/trunk_0_1/Sigmoid"),)
    with pytest.raises(ExportError, match="TensorRT has no operator for Sigmoid in layer trunk_0"):
        format_of("tensorrt").export(full_size.source, tmp_path)
    assert not (tmp_path / "model.plan").exists()


def test_an_engine_of_another_gpu_is_one_clear_error(stage: _Stage, tmp_path: Path) -> None:
    (tmp_path / "model.plan").write_bytes(b"another GPU's")
    with pytest.raises(ExportError, match="TensorRT cannot load it"):
        format_of("tensorrt").load(tmp_path)
