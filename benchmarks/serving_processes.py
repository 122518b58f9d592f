"""The servers that are measured, each a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.processes import ROOT
from bike_pipeline.serving.clients import Connection, RetryPolicy, UnavailableError, connect

MODEL = "bike_demand"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "GRPC_VERBOSITY": "ERROR"}
_START_SECONDS = 180


@dataclass(frozen=True)
class Served:
    """A server that answers.

    Attributes:
        rest: where it is asked over REST.
        grpc: where it is asked over gRPC; the same as `rest` where it speaks REST only.
        process: its process.
        backends: what answers each signature of the version that it began with.
    """

    rest: Connection
    grpc: Connection
    process: subprocess.Popen[str]
    backends: dict[str, str]

    @property
    def megabytes(self) -> float:
        """Resident memory now."""
        return float(psutil.Process(self.process.pid).memory_info().rss) / 1e6

    @property
    def cpu_seconds(self) -> float:
        """CPU time that it took until now."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.process.send_signal(signal.SIGTERM)


def _ended(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _connection(address: str, protocol: str) -> Connection:
    host, _, port = address.rpartition(":")
    # Nothing is tried again: each failure counts.
    return Connection(host, int(port), "grpc" if protocol == "grpc" else "rest", MODEL, retries=RetryPolicy(1))


@contextlib.contextmanager
def embedded(base: Path, folder: Path, *assignments: str) -> Iterator[Served]:
    """Run `bike-pipeline serve`.

    Args:
        base: the folder that holds the model's folder.
        folder: where its log goes.
        assignments: further settings, as `key=value`.

    Raises:
        SystemExit: it does not start, or serves nothing.
    """
    command = [sys.executable, "-m", "bike_pipeline.cli", "serve", "--json", "--rest-port", "0", "--grpc-port", "0"]
    places = (f"workspace={folder}", f"serving.base_path={base}", "serving.server.poll_seconds=0.1")
    for assignment in (*places, *assignments):
        command += ["--set", assignment]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT, cwd=ROOT)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        told = json.loads(line) if line else {}
        if not told.get("versions"):
            raise SystemExit(f"error: the server serves nothing; its log: {folder / 'logs' / 'serve.log'}")
        backends = next(iter(told["versions"].values()))
        yield Served(_connection(told["rest"], "rest"), _connection(told["grpc"], "grpc"), process, backends)
    finally:
        _ended(process)


@contextlib.contextmanager
def peer(kind: str, export: Path) -> Iterator[Served]:
    """Run a server that the embedded one is held against.

    Args:
        kind: "fastapi", "aiohttp" or "grpc" (see `serving_peer`).
        export: folder of the export that the embedded server answers with.

    Raises:
        SystemExit: it does not start.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, str(ROOT / "benchmarks" / "serving_peer.py"), kind, str(export), str(port)]
    process = subprocess.Popen(command, text=True, env=ENVIRONMENT, cwd=ROOT)
    connection = _connection(f"127.0.0.1:{port}", "grpc" if kind == "grpc" else "rest")
    try:
        deadline = time.monotonic() + _START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                yield Served(connection, connection, process, {"serving_default": kind})
                return
            time.sleep(0.2)
        raise SystemExit(f"error: the peer '{kind}' does not start")
    finally:
        _ended(process)


def wait_for(served: Served, version: int) -> bool:
    """Wait until a version is available; say whether it is."""
    deadline = time.monotonic() + _START_SECONDS
    with connect(served.grpc) as client:
        while time.monotonic() < deadline:
            with contextlib.suppress(UnavailableError):
                if any(one.version == version and one.available for one in client.status()):
                    return True
            time.sleep(0.01)
    return False
