"""Options of a run that change what it starts from or whom it waits for."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from filelock import FileLock

from tests.end_to_end.conftest import FEW_EPOCHS, Called, Halves, Product

pytestmark = pytest.mark.slow

QUICK = ("--set", FEW_EPOCHS)
WARM = ("--set", "training.warm_start=true")


def _log(product: Product, result: dict[str, object]) -> str:
    return Path(str(result["log"])).read_text(encoding="utf-8", errors="replace")


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory, run_halves: Halves) -> Product:
    """A workspace with one run behind it."""
    return Product(run_halves.copied(1, tmp_path_factory.mktemp("options") / "workspace"))


def test_warm_start_begins_from_the_serving_model(tmp_path: Path) -> None:
    product = Product(tmp_path / "workspace")
    cold = product.call("run", "--demo", "first", "--json", *QUICK, *WARM)
    assert cold.code == 0, cold.err
    outcomes = {stage["name"]: stage["outcome"] for stage in cold.result["stages"]}
    assert outcomes["WarmStartLookup"] == "no model has been pushed yet"
    assert "there is no serving model to start from" in _log(product, cold.result)
    warm = product.call("run", "--json", *QUICK, *WARM)
    assert warm.code in (0, 6), warm.err
    assert warm.states["Transform"] == "cached"
    assert warm.states["Trainer"] == "done"
    outcomes = {stage["name"]: stage["outcome"] for stage in warm.result["stages"]}
    assert outcomes["WarmStartLookup"] == f"version {cold.result['pushed_version']} is serving"
    assert "Warm start" not in _log(product, warm.result)


def test_a_second_run_waits_where_asked_to(product: Product) -> None:
    lock = FileLock(product.workspace / "run.lock")
    with lock:
        waiting = subprocess.Popen(
            product.command("run", "--wait", "--json"),
            cwd=product.source,
            env=product.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(3)
        assert waiting.poll() is None
    out, err = waiting.communicate(timeout=300)
    assert waiting.returncode == 0, err
    assert set(Called(0, out, err).states.values()) == {"cached"}


def test_an_interrupted_run_says_so(product: Product) -> None:
    import signal

    with subprocess.Popen(
        product.command("run", "--no-cache"),
        cwd=product.source,
        env=product.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Who runs the tests in the background has interrupts ignored, and processes inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("DataGate"):
                time.sleep(0.5)
                process.send_signal(signal.SIGINT)
                break
        try:
            _, err = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            # Python drops an interrupt that falls into a destructor; a person would press the keys again.
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err.strip() == "error: interrupted; what was finished is kept, and the next run goes on from there."


def test_a_search_is_taken_over_by_later_runs(tmp_path: Path) -> None:
    product = Product(tmp_path / "workspace")
    small = ("--set", "tuning.trials=2", "--set", "tuning.space=[{name: epochs, choices: [4]}]")
    none = product.call("run", "--demo", "first", "--json", "--set", "tuning.import_best=true")
    assert none.code == 3, none.err
    assert "no run has searched for them. Run once with --set tuning.enabled=true" in none.err
    searched = product.call("run", "--json", *small, "--set", "training.epochs=1", "--set", "tuning.enabled=true")
    assert searched.code in (0, 6), searched.err
    outcomes = {stage["name"]: stage["outcome"] for stage in searched.result["stages"]}
    assert "best mae of 2 trials" in outcomes["Tuner"]
    assert outcomes["Tuner"].endswith(": epochs 4")
    taken = product.call("run", "--json", "--set", "training.epochs=1", "--set", "tuning.import_best=true")
    assert taken.code in (0, 6), taken.err
    assert taken.states["Transform"] == "cached"
    outcomes = {stage["name"]: stage["outcome"] for stage in taken.result["stages"]}
    assert outcomes["HyperParametersLookup"] == f"from the search of run {searched.result['run_id']}"
    losses = [path.read_text().splitlines() for path in product.workspace.rglob("model_run/*/loss.csv")]
    assert [len(lines) for lines in losses] == [1 + 4, 1 + 4]
    cards = [path.read_text() for path in product.workspace.rglob("artifacts/ModelCard/model_card/*/model_card.md")]
    assert all("by a search: epochs 4" in card for card in cards)
    assert len(cards) == 2
