"""ONNX: the whole serving graph, raw features in and rentals out, run by ONNX Runtime."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from bike_pipeline import extras, features
from bike_pipeline.errors import ExportError, first_words
from bike_pipeline.exporting.formats import base
from bike_pipeline.exporting.formats.base import Columns, Format, Predictions, Source

FILE = "model.onnx"
# The newest that tf2onnx writes.
OPSET = 18
BATCH = "batch"
# tf2onnx writes a file with operators that ONNX does not have, says so in its log, and exits with 0.
_UNSUPPORTED = re.compile(r"Tensorflow op \[(?P<node>[^\]]+): (?P<operator>\w+)\] is not supported")
_TYPES = {"tensor(int64)": np.int64, "tensor(float)": np.float32}
# Of TensorRT's recipe: its JSON, its script, and the engine that it builds.
CONFIG, SCRIPT, ENGINE = "tensorrt.json", "trtexec.sh", "model.plan"
# Rows in one call of an engine: a client's single hour, a batch of the embedded server, and the most.
ENGINE_ROWS = {"min": 1, "opt": 1_024, "max": base.ROWS_PER_CALL}


class Session:
    """An ONNX model in ONNX Runtime, on one thread."""

    def __init__(self, path: Path, title: str) -> None:
        """Load the file."""
        extras.require("exports", f"running {title}")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        # Errors only; they are raised as well.
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            self._types = {tensor.name: _TYPES[tensor.type] for tensor in self._session.get_inputs()}
            self._answer = features.answer_among(tensor.name for tensor in self._session.get_outputs())
        # ONNX Runtime's errors have no common public class.
        except Exception as error:
            raise base.cannot_load("ONNX Runtime", first_words(error), path) from error

    def predict(self, columns: Columns) -> Predictions:
        """Return the rentals an hour of raw rows, shape (rows,)."""
        arrays = {name: np.asarray(columns[name], kind) for name, kind in self._types.items()}
        return np.asarray(self._session.run([self._answer], arrays)[0], np.float32)


class Float32(Format):
    """The model's own numbers."""

    name = "onnx_float32"
    title = "ONNX float32"
    extra = "exports"
    file = FILE

    def export(self, source: Source, folder: Path) -> None:
        """Convert the signature that takes raw features, and ask the file for a row; TensorRT's recipe is beside it."""
        extras.require(self.extra, f"exporting to {self.title}")
        convert(source, folder / FILE)
        Session(folder / FILE, self.title).predict({name: values[:1] for name, values in source.calibration.items()})
        write_recipe(folder)

    def load(self, folder: Path) -> Session:
        """Load it with ONNX Runtime, on one thread."""
        return Session(folder / FILE, self.title)


def write_recipe(folder: Path) -> None:
    """Write what TensorRT builds an engine from the ONNX file with: a `trtexec` line as a script, and the same as JSON.

    So whoever has the GPU can build the engine: it runs on the model of GPU and the version of TensorRT that it was
    built with, and on no other. TF32, which TensorRT uses where it may, keeps 10 bits of a product's inputs; the check
    allows a difference of 1e-5.
    """
    shapes = [
        f"--{name}Shapes={','.join(f'{f.name}:{rows}' for f in features.MODEL_INPUTS)}"
        for name, rows in ENGINE_ROWS.items()
    ]
    words = ["trtexec", f"--onnx={FILE}", f"--saveEngine={ENGINE}", *shapes, "--noTF32", "--skipInference"]
    line = " \\\n  ".join(map(shlex.quote, words))
    script = folder / SCRIPT
    script.write_text(
        f'#!/bin/sh\n# Needs TensorRT 10 or later and an NVIDIA GPU.\ncd "$(dirname "$0")" && exec {line}\n'
    )
    script.chmod(0o755)
    import onnx

    types = {"int": "int64", "float": "float32"}
    outputs = onnx.load(folder / FILE, load_external_data=False).graph.output
    config = {
        "onnx": FILE,
        "engine": ENGINE,
        "precision": "float32",
        "tf32": False,
        "inputs": {f.name: types[f.kind] for f in features.MODEL_INPUTS},
        "output": features.answer_among(tensor.name for tensor in outputs),
        "rows": ENGINE_ROWS,
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def convert(source: Source, path: Path) -> None:
    """Write the signature that takes raw features as an ONNX file whose batch may be of any size."""
    shared = source.shared / FILE if source.shared else None
    if shared and shared.is_file():
        content = shared.read_bytes()
    else:
        # Several formats begin with the same file, and a conversion takes seconds.
        content = _converted(source.saved_model.resolve())
        if shared:
            shared.write_bytes(content)
    scratch = path.with_name(f".{path.name}")
    scratch.write_bytes(content)
    scratch.replace(path)


def _converted(saved_model: Path) -> bytes:
    import onnx

    with tempfile.TemporaryDirectory() as scratch:
        written = os.path.join(scratch, FILE)
        # Models of earlier releases have one signature of plain tensors. A file has a signature's name if it has it.
        every = features.SERVING_ALL_INPUTS
        known = every.encode() in (saved_model / "saved_model.pb").read_bytes()
        arguments = ["--saved-model", str(saved_model), "--signature_def", every if known else features.SERVING_DEFAULT]
        # In a process of its own: it changes TensorFlow's global state, and its messages are all it says of failures.
        done = subprocess.run(
            [sys.executable, "-m", "tf2onnx.convert", *arguments, "--opset", str(OPSET), "--output", written],
            cwd=scratch,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        operators = [(m["operator"], m["node"]) for m in _UNSUPPORTED.finditer(done.stdout + done.stderr)]
        if operators:
            raise base.unsupported("ONNX", operators, saved_model)
        if done.returncode or not Path(written).exists():
            last = (done.stderr.strip() or "it wrote no file").splitlines()[-1]
            raise ExportError(f"tf2onnx cannot convert it ({last})", where=str(saved_model), fix="see its message")
        model = onnx.load(written)
    for tensor in (*model.graph.input, *model.graph.output):
        # tf2onnx gives every tensor a batch of its own name, and a runtime then cannot see that they are the same.
        tensor.type.tensor_type.shape.dim[0].dim_param = BATCH
    # It holds the path of the SavedModel on this machine.
    model.graph.ClearField("doc_string")
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())
