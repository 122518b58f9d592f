"""Starts `bike-pipeline serve` as a process of its own, for the tests of the server and of its clients."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bike_pipeline.exporting.formats.base import Source
from bike_pipeline.exporting.formats.registry import format_of
from bike_pipeline.model_registry import ModelRegistry, layout, model_signature
from bike_pipeline.modeling.golden import golden_rows

MODEL = "bike_demand"


@dataclass(frozen=True)
class Running:
    """A server that is listening.

    Attributes:
        rest: host:port of the REST API.
        grpc: host:port of the gRPC API.
        base: the folder that holds the models; a new version goes to `base / MODEL / version`.
        told: what it said of itself at its start.
        process: the process.
    """

    rest: str
    grpc: str
    base: Path
    told: dict[str, Any]
    process: subprocess.Popen[str]

    @property
    def url(self) -> str:
        """Address of the model."""
        return f"http://{self.rest}/v1/models/{MODEL}"

    @property
    def log(self) -> str:
        """What it logged so far."""
        return Path(self.told["log"]).read_text(encoding="utf-8", errors="replace")

    def stop(self) -> int:
        """Stop it by SIGTERM and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


@contextmanager
def running_server(base: Path, workspace: Path, *assignments: str) -> Iterator[Running]:
    """Serve what lies in `base` on free ports; leave nothing running.

    Args:
        base: the folder that holds one folder a model.
        workspace: where the log goes.
        assignments: further settings, as `key=value`.
    """
    command = [sys.executable, "-m", "bike_pipeline.cli", "serve", "--json", "--rest-port", "0", "--grpc-port", "0"]
    for assignment in (f"workspace={workspace}", f"serving.base_path={base}", *assignments):
        command += ["--set", assignment]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "GRPC_VERBOSITY": "ERROR"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise AssertionError(f"the server did not start: {process.stderr.read()}")
        told = json.loads(line)
        yield Running(told["rest"], told["grpc"], base, told, process)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        process.stdout.close()
        process.stderr.close()


def simple_model(folder: Path, scale: float, output: str = "cnt", optional: tuple[str, ...] = ()) -> Path:
    """Write a SavedModel with the served model's signatures whose answers tell which model and which row they are of.

    `cnt` is scale × (hr + 100 × temp). Beside the two usual signatures there is `texts`, from strings to bytes and
    numbers, which no export has.

    Args:
        folder: where to write it.
        scale: tells models apart.
        output: what it calls its answer.
        optional: optional inputs that it has besides.
    """
    import tensorflow as tf

    from bike_pipeline import features

    kinds = {"int": tf.int64, "float": tf.float32}
    inputs = (*features.REQUIRED_INPUTS, *(features.BY_NAME[name] for name in optional))
    specs = {f.name: tf.TensorSpec([None], kinds[f.kind], name=f.name) for f in inputs}
    parsing = {name: tf.io.FixedLenFeature([], spec.dtype) for name, spec in specs.items()}

    class Simple(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = tf.Variable(scale)

        @tf.function(input_signature=[specs])
        def rows(self, raw: dict[str, Any]) -> dict[str, Any]:
            # Every input has a part in it, so that none is left out of an export.
            others = tf.add_n([tf.cast(raw[name], tf.float32) * 0.0 for name in specs])
            return {output: self.scale * (tf.cast(raw["hr"], tf.float32) + 100.0 * raw["temp"]) + others}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
        def examples(self, examples: Any) -> dict[str, Any]:
            return self.rows(tf.io.parse_example(examples, parsing))

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
        def texts(self, text: Any) -> dict[str, Any]:
            lengths = tf.strings.length(text)
            return {"text_bytes": text, "length": lengths, "half": tf.cast(lengths, tf.float32) / 2.0}

    model = Simple()
    signatures = {"serving_default": model.rows, "serving_examples": model.examples, "texts": model.texts}
    tf.saved_model.save(model, str(folder), signatures=signatures)
    return folder


def required_rows(count: int) -> dict[str, Any]:
    """Return golden rows as `serving_default` takes them, without the optional inputs, by column."""
    from bike_pipeline import features

    rows = golden_rows(200)
    return {feature.name: rows[feature.name][:count] for feature in features.REQUIRED_INPUTS}


def with_export(saved_model: Path, folder: Path, name: str = "tflite_float32") -> Path:
    """Return a copy of a SavedModel with an export that passed parity, as the pipeline pushes it.

    Args:
        saved_model: the model.
        folder: where the copy goes; must not exist.
        name: the export format.
    """
    import shutil

    shutil.copytree(saved_model, folder)
    exports = folder / "assets.extra" / "exports"
    (exports / name).mkdir(parents=True)
    form = format_of(name)
    form.export(Source(saved_model, golden_rows(200)), exports / name)
    content = (exports / name / form.file).read_bytes()
    record = {
        "passed": True,
        "reason": "",
        "file": form.file,
        "precision": form.precision,
        "size_bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "latency_us": 20.0,
        "rows_per_second": 2e6,
    }
    (exports / "parity.json").write_text(json.dumps({"formats": {name: record}}), encoding="utf-8")
    return folder


def row(hr: int, temp: float) -> dict[str, Any]:
    """Return a row that a simple model of scale 1 answers with hr + 100 × temp."""
    others = {"yr": 1, "mnth": 6, "holiday": 0, "weekday": 5, "workingday": 1, "weathersit": 1}
    return {**others, "hr": hr, "temp": temp, "atemp": 0.5, "hum": 0.5, "windspeed": 0.25}


def push(base: Path, model: Path, version: int) -> Path:
    """Push a model as a version, as the Pusher does, without a key.

    Args:
        base: the folder that holds the models.
        model: folder of the SavedModel.
        version: the version's number.
    """
    record = {
        "fingerprint": layout.fingerprint(model),
        "exports_fingerprint": layout.exports_fingerprint(model),
    }
    registry = ModelRegistry(base / MODEL)
    registry.add(model, version, record, lambda folder: model_signature.write(folder, {}, None, version))
    return registry.folder(version)
