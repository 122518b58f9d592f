"""What TensorRT needs to build an engine from the ONNX file: a `trtexec` line and the same as JSON.

Written beside every float32 ONNX file, so that whoever has the GPU can build the engine: an engine runs on the model of
GPU and the version of TensorRT that it was built with, and on no other.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from bike_pipeline import features

CONFIG = "tensorrt.json"
SCRIPT = "trtexec.sh"
ENGINE = "model.plan"
# Rows in one call: a client's single hour, a batch of the embedded server, and the most that an engine is made for.
SMALLEST, USUAL, LARGEST = 1, 1_024, 16_384
_TYPES = {"int": "int64", "float": "float32"}


def config(onnx_file: str) -> dict[str, Any]:
    """Return what an engine is built with.

    TF32, which TensorRT uses where it may, keeps 10 bits of a product's inputs; the check allows a difference of 1e-5.
    """
    return {
        "onnx": onnx_file,
        "engine": ENGINE,
        "precision": "float32",
        "tf32": False,
        "inputs": {f.name: _TYPES[f.kind] for f in features.MODEL_INPUTS},
        "output": features.LABEL,
        "rows": {"min": SMALLEST, "opt": USUAL, "max": LARGEST},
    }


def trtexec(onnx_file: str) -> list[str]:
    """Return the command that builds the engine with TensorRT's own program."""

    def shapes(rows: int) -> str:
        return ",".join(f"{f.name}:{rows}" for f in features.MODEL_INPUTS)

    return [
        "trtexec",
        f"--onnx={onnx_file}",
        f"--saveEngine={ENGINE}",
        f"--minShapes={shapes(SMALLEST)}",
        f"--optShapes={shapes(USUAL)}",
        f"--maxShapes={shapes(LARGEST)}",
        "--noTF32",
        "--skipInference",
    ]


def write(folder: Path, onnx_file: str) -> None:
    """Write the line, as a script that runs where it lies, and the JSON beside the ONNX file."""
    line = " \\\n  ".join(shlex.quote(word) for word in trtexec(onnx_file))
    script = folder / SCRIPT
    script.write_text(
        f'#!/bin/sh\n# Needs TensorRT 10 or later and an NVIDIA GPU.\ncd "$(dirname "$0")" && exec {line}\n'
    )
    script.chmod(0o755)
    (folder / CONFIG).write_text(json.dumps(config(onnx_file), indent=2) + "\n", encoding="utf-8")
