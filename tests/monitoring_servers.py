"""Real Prometheus, Alertmanager and node_exporter for tests: on loopback, stopped afterwards."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

import monitoring_servers


def command(name: str) -> list[str]:
    """Return what a program is started with; skip the test, saying why, where there is none."""
    found = monitoring_servers.command(name)
    if found is None:
        package = monitoring_servers.PACKAGES[name]
        pytest.skip(
            f"no {name} that starts on this machine: neither installed (Debian, Ubuntu: apt install {package}) nor "
            "fetched (`make monitoring-servers`; Alertmanager also needs user namespaces then)"
        )
    return found


def run(name: str, *arguments: str | Path) -> str:
    """Return what a program says, which must end well."""
    done = subprocess.run(
        [*command(name), *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@contextmanager
def started(folder: Path, name: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server with its log in `folder`; stop it afterwards."""
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [*command(name), *arguments], stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=folder
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
