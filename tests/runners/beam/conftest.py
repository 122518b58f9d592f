"""Stand-ins: for `java -jar`, a program that serves Beam's job API; for a Flink cluster, its REST interface."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

# What the job server of Flink prints is not needed; that it is Java 17 is asked first.
_JAVA = """#!{python}
import sys
if "-version" in sys.argv:
    print('openjdk version "{version}" 2024-01-01', file=sys.stderr)
    sys.exit(0)
arguments = dict(zip(sys.argv[1:], sys.argv[2:]))
port = arguments["--job-port"]
{body}
"""
_SILENT = "import time; time.sleep(600)"
_BROKEN = "print('the cluster refused me'); sys.exit(3)"
_LISTENING = """
import os, time
from concurrent import futures
import grpc
server = grpc.server(futures.ThreadPoolExecutor(1))
server.add_insecure_port("localhost:" + port)
server.start()
print("process", os.getpid(), "stages into", arguments["--artifacts-dir"], "for", arguments["--flink-master"])
sys.stdout.flush()
time.sleep(600)
"""
BODIES = {"silent": _SILENT, "broken": _BROKEN, "listening": _LISTENING}


@pytest.fixture
def java(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes such a program, with a behaviour and a version, and returns its path."""

    def write(behaviour: str, version: str = "17.0.9") -> Path:
        path = tmp_path / f"java-{behaviour}"
        path.write_text(_JAVA.format(python=sys.executable, version=version, body=BODIES[behaviour]))
        path.chmod(0o755)
        return path

    return write


class FlinkServer(ThreadingHTTPServer):
    """The REST interface of a Flink cluster, as far as a run asks it.

    Attributes:
        overview: what it says of itself.
        asked: the paths of the requests.
    """

    daemon_threads = True

    def __init__(self) -> None:
        """Listen on loopback, as a cluster of one task manager with two slots."""
        super().__init__(("127.0.0.1", 0), _FlinkHandler)
        # Every field that Flink 1.20 answers, in its order.
        self.overview: dict[str, Any] = {
            "taskmanagers": 1,
            "slots-total": 2,
            "slots-available": 2,
            "jobs-running": 0,
            "jobs-finished": 0,
            "jobs-cancelled": 0,
            "jobs-failed": 0,
            "flink-version": "1.20.1",
            "flink-commit": "b62db93",
        }
        self.asked: list[str] = []

    @property
    def master(self) -> str:
        """Its host:port."""
        return f"127.0.0.1:{self.server_address[1]}"


class _FlinkHandler(BaseHTTPRequestHandler):
    server: FlinkServer

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        known = self.path == "/overview"
        content = json.dumps(self.server.overview if known else {"errors": [f"Not found: {self.path}"]}).encode()
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", "application/json; charset=UTF-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def flink() -> Iterator[FlinkServer]:
    """A cluster of Flink 1.20.1 with one task manager."""
    with FlinkServer() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
