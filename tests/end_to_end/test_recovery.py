"""A run that is killed at any point: the next one goes on from what finished, and pushes once."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.conftest import FEW_EPOCHS, Halves, Product

pytestmark = pytest.mark.slow

# Kills the process at the rename that makes a version visible: just before it, or just after.
KILL_AT_PUSH = """
import os, signal, sys
from pathlib import Path
from bike_pipeline import cli
rename = Path.rename
def killing(self, target):
    if self.parent.name == ".writing" and self.parent.parent.name == "bike_demand" and self.is_dir():
        if {after}:
            rename(self, target)
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, target)
Path.rename = killing
sys.argv = ["bike-pipeline", "run", "--json", "--set", f"workspace={{sys.argv[1]}}", "--set", "{few_epochs}"]
cli.main()
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose run was killed while the model was being trained."""
    product = Product(tmp_path_factory.mktemp("killed") / "workspace", settings=(FEW_EPOCHS,))
    with subprocess.Popen(
        product.command("run", "--demo", "first"),
        cwd=product.source,
        env=product.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in _lines(process):
            if line.startswith("Transform"):
                # Long enough for the Trainer to begin, too short for it to end.
                time.sleep(0.5)
                process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    return product.workspace


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    yield from process.stdout


@pytest.fixture
def product(trained: Path, tmp_path: Path) -> Iterator[Product]:
    """The workspace of the killed run, as it was, at its own place: paths are part of what is recorded."""
    kept = tmp_path / "kept"
    shutil.copytree(trained, kept)
    yield Product(trained, settings=(FEW_EPOCHS,))
    shutil.rmtree(trained)
    shutil.copytree(kept, trained)


def test_the_next_run_goes_on_from_what_finished(product: Product) -> None:
    runs = json.loads(product.call("runs", "--json").out)
    assert len(runs) == 1
    assert [stage["name"] for stage in runs[0]["stages"]][:6] == [
        "CsvExampleGen",
        "ImportSchemaGen",
        "StatisticsGen",
        "ExampleValidator",
        "DataGate",
        "Transform",
    ]
    assert not product.versions()
    resumed = product.call("run", "--json")
    assert resumed.code == 0, resumed.err
    states = resumed.states
    assert {states[name] for name in ("CsvExampleGen", "StatisticsGen", "DataGate", "Transform")} == {"cached"}
    assert {states[name] for name in ("Trainer", "Evaluator", "Pusher")} == {"done"}
    assert product.versions() == [str(resumed.result["pushed_version"])]
    listed = json.loads(product.call("runs", "--json").out)
    assert [run["state"] for run in listed] == ["interrupted", "done"]


def test_killed_in_the_push(product: Product, tmp_path: Path) -> None:
    killed = product.python(KILL_AT_PUSH.format(after=False, few_epochs=FEW_EPOCHS))
    assert killed.code == -signal.SIGKILL
    assert not [name for name in product.versions() if name.isdigit()]
    before = tmp_path / "before the rename"
    shutil.copytree(product.workspace, before)
    resumed_and_pushed_once(product)
    # As it was, and killed a moment later.
    shutil.rmtree(product.workspace)
    shutil.copytree(before, product.workspace)
    killed = product.python(KILL_AT_PUSH.format(after=True, few_epochs=FEW_EPOCHS))
    assert killed.code == -signal.SIGKILL
    visible = [name for name in product.versions() if name.isdigit()]
    assert len(visible) == 1
    resumed_and_pushed_once(product)
    assert product.versions() == visible


def resumed_and_pushed_once(product: Product) -> None:
    """Check that the next run pushes the model that is there, and the one after it nothing."""
    resumed = product.call("run", "--json")
    assert resumed.code == 0, resumed.err
    assert {state for name, state in resumed.states.items() if name != "Pusher"} == {"cached"}
    assert product.versions() == [str(resumed.result["pushed_version"])]
    assert product.call("run", "--json").result["pushed_version"] == resumed.result["pushed_version"]
    assert len(product.versions()) == 1


def test_a_second_run_at_once_is_refused(product: Product) -> None:
    from filelock import FileLock

    with FileLock(product.workspace / "run.lock"):
        refused = product.call("run")
    assert refused.code == 7
    assert "another run is working in this workspace" in refused.err
    assert len(refused.err.strip().splitlines()) == 1


def test_a_version_that_was_lost_is_pushed_again(run_halves: Halves, tmp_path: Path) -> None:
    product = Product(run_halves.copied(1, tmp_path / "workspace"))
    assert len(product.versions()) == 1
    shutil.rmtree(product.workspace / "serving")
    restored = product.call("run", "--json")
    assert restored.code == 0, restored.err
    assert {name for name, state in restored.states.items() if state == "done"} == {"Pusher"}
    assert restored.result["newly_pushed"]
    assert product.versions() == [str(restored.result["pushed_version"])]
    again = product.call("run", "--json")
    assert set(again.states.values()) == {"cached"}
    assert again.result["pushed_version"] == restored.result["pushed_version"]
