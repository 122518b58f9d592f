"""Starts `bike-pipeline gateway` as a process of its own, with what it routes to."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bike_pipeline.model_registry import ModelRegistry
from tests.serving.running import MODEL


@dataclass(frozen=True)
class RunningGateway:
    """A gateway that routes.

    Attributes:
        address: host:port of both protocols.
        access_log: file of its access log.
        process: the process.
        errors: what it said of itself.
        folder: where its sockets are.
    """

    address: str
    access_log: Path
    process: subprocess.Popen[str]
    errors: Path
    folder: Path

    @property
    def admin(self) -> Path:
        """The socket of Envoy's own interface."""
        return next(self.folder.glob("*/admin.sock"))

    @property
    def url(self) -> str:
        """Address of the model, over REST."""
        return f"http://{self.address}/v1/models/{MODEL}"

    def lines(self) -> list[dict]:
        """Return the lines of the access log so far."""
        text = self.access_log.read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def environment(**more: str) -> dict[str, str]:
    """Return the environment of the processes."""
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "GRPC_VERBOSITY": "ERROR", **more}


@contextmanager
def running_gateway(base: Path, workspace: Path, *assignments: str, options: tuple[str, ...] = ()) -> Iterator:
    """Route to what is promoted in `base`; leave nothing running."""
    command = [sys.executable, "-m", "bike_pipeline.cli", "gateway", "--json", "--port", "0", *options]
    fast = ("gateway.poll_seconds=0.05", "serving.server.poll_seconds=0.05")
    # What decides is counted here request by request, however fast a machine asks.
    every = "monitoring.request_log.per_second=0"
    for assignment in (f"workspace={workspace}", f"serving.base_path={base}", *fast, every, *assignments):
        command += ["--set", assignment]
    workspace.mkdir(parents=True, exist_ok=True)
    errors = workspace / "gateway.stderr"
    # pytest's own folders are too long for sockets.
    folder = tempfile.mkdtemp(prefix="bike-")
    with errors.open("wb") as stream:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stream, text=True, env=environment(TMPDIR=folder)
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise AssertionError(f"the gateway did not start: {errors.read_text()}")
        told = json.loads(line)
        yield RunningGateway(told["address"], Path(told["access_log"]), process, errors, Path(folder))
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=90)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        process.stdout.close()
        left = list(Path(folder).iterdir())
        shutil.rmtree(folder)
    assert left == []


def promoted(base: Path, version: int) -> ModelRegistry:
    """Promote a pushed version, and return the registry."""
    registry = ModelRegistry(base / MODEL)
    registry.set_validated(version, passed=True, reason="a test")
    registry.promote(version, reason="a test")
    return registry


def shared(registry: ModelRegistry, version: int, label: str, share: float) -> None:
    """Give a pushed version a label and a share of the requests."""
    registry.set_validated(version, passed=True, reason="a test")
    registry.shift(version, label, share, "a test")
