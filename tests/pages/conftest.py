"""A headless Chromium for the tests of a module."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import pytest

from tests import chromium


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a headless Chromium takes commands."""
    program, environment = chromium.found()
    profile = tmp_path_factory.mktemp("profile")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
               f"--user-data-dir={profile}", "--remote-debugging-port=0"]  # fmt: skip
    process = subprocess.Popen([program, *options, "about:blank"], env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        yield next(m[1] for line in process.stderr if (m := re.search(r"listening on ws://([^/]+)/", line)))
    finally:
        process.kill()
        process.wait()
