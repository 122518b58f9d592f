"""What a person sees in a terminal: the table of stages, and nothing of what the libraries have to say."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Product

pytestmark = pytest.mark.slow


def _seen(product: Product, *arguments: str) -> tuple[int, str]:
    """Run in a pseudo-terminal; return the exit code and all that was shown, without control sequences."""
    ours, theirs = pty.openpty()
    environment = {**product.environment(), "TERM": "xterm", "COLUMNS": "120", "LINES": "50"}
    with subprocess.Popen(
        product.command(*arguments), cwd=product.source, env=environment, stdout=theirs, stderr=theirs, stdin=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while chunk := os.read(ours, 65_536):
                shown += chunk
        except OSError:
            # Linux reports the other side's end this way.
            pass
        code = process.wait()
    os.close(ours)
    return code, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())


def test_a_failing_stage_is_shown_in_the_table(tmp_path: Path) -> None:
    code, shown = _seen(Product(tmp_path / "workspace"), "run")
    assert code == 4
    assert "loading TensorFlow and TFX" in shown
    assert re.search(r"✘ CsvExampleGen +failed", shown)
    assert re.search(r"· Pusher +waiting", shown)
    assert "error: " in shown
    assert str(tmp_path / "workspace" / "logs") in shown
    for noise in ("WARNING", "INFO", "oneDNN", "Traceback", "absl"):
        assert noise not in shown
