"""A headless Chromium for the tests of a module, and a server with the page for people."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from bike_pipeline.model_registry import ModelRegistry
from tests import chromium
from tests.conftest import Exported
from tests.serving.running import MODEL, Running, push, running_server, with_export


@contextmanager
def started(program: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """Run a headless Chromium; yield where it takes commands."""
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
                   f"--user-data-dir={profile}", "--remote-debugging-port=0"]  # fmt: skip
        command = [program, *options, "about:blank"]
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        try:
            yield next(m[1] for line in process.stderr if (m := re.search(r"listening on ws://([^/]+)/", line)))
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def browser() -> Iterator[str]:
    """Where a headless Chromium takes commands."""
    with started(*chromium.found()) as running:
        yield running


@pytest.fixture(scope="module")
def server(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with the page, of a promoted version and a canary that gets a part of the requests."""
    base = tmp_path_factory.mktemp("forecast-served")
    model = with_export(exported.path, tmp_path_factory.mktemp("forecast-model") / "model")
    registry = ModelRegistry(base / MODEL)
    for version in (1, 2):
        push(base, model, version)
        if version == 1:
            registry.begin()
        registry.set_validated(version, passed=True, reason="it answers")
    registry.shift(2, "canary", 25.0, "it does well so far")
    with running_server(base, tmp_path_factory.mktemp("forecast-workspace"), "serving.server.ui=true") as running:
        yield running
