"""A run that is told to end says so, leaves nothing half-done and is on record; one whose reader leaves goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Called, Product

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Product:
    return Product(tmp_path_factory.mktemp("ended") / "workspace")


def begun(product: Product, temporary: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a run whose temporary files are in a folder of its own."""
    temporary.mkdir()
    return subprocess.Popen(
        # Whoever started these tests may have them ignore a hangup (nohup), and a run would keep to that.
        ["env", "--default-signal=HUP,TERM", *product.command("run", "--demo", "first", "--no-cache", *arguments)],
        cwd=product.source,
        env={**product.environment(), "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(product: Product, temporary: Path, number: int, after: str, *arguments: str) -> Called:
    """Send a signal to a run shortly after a stage of it was done."""
    with begun(product, temporary, *arguments) as process:
        assert process.stdout is not None
        shown = ""
        for line in process.stdout:
            shown += line
            if line.startswith(after):
                time.sleep(0.5)
                process.send_signal(number)
        assert process.stderr is not None
        said = process.stderr.read()
        return Called(process.wait(), shown, said)


@pytest.mark.parametrize(
    ("name", "after", "runner"),
    [("SIGTERM", "Transform", ()), ("SIGHUP", "Evaluator", ()), ("SIGTERM", "Transform", ("--runner", "beam"))],
    ids=["SIGTERM in Trainer", "SIGHUP in Exporter", "SIGTERM on Beam"],
)
def test_a_run_that_is_told_to_end(
    product: Product, tmp_path: Path, name: str, after: str, runner: tuple[str, ...]
) -> None:
    done = ended(product, tmp_path / "tmp", signal.Signals[name], after, *runner)
    assert done.code == 130, done.err
    assert done.err.strip().startswith(f"error: interrupted by {name}; what was finished is kept")
    assert len(done.err.strip().splitlines()) == 1
    assert list((tmp_path / "tmp").iterdir()) == []
    runs = json.loads(product.call("runs", "--json").out)
    assert runs[-1]["state"] == "interrupted"
    product.call("gc", "--keep-days", "0", "--keep-blessed", "0")
    artifacts = product.workspace / "artifacts"
    assert [path for path in artifacts.glob("[!.]*/[!.]*/*") if path.is_dir()] == []


def test_a_reader_who_leaves_does_not_end_the_run(product: Product, tmp_path: Path) -> None:
    with begun(product, tmp_path / "tmp") as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.close(process.stdout.fileno())
        assert process.stderr is not None
        said = process.stderr.read()
        assert process.wait() == 0, said
        process.stdout = None
    assert json.loads(product.call("runs", "--json").out)[-1]["state"] == "done"
    assert list((tmp_path / "tmp").iterdir()) == []
