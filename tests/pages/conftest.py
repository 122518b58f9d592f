"""A headless Chromium for the tests of a module."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import chromium


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
