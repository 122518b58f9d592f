"""A stand-in for `java -jar`: a program that takes the job server's arguments and serves Beam's job API."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

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
