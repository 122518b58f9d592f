"""`watch --once` is killed by the kernel at one step after the other, and started again: one change makes one run.

When to kill is seen in the ledger, from outside; the product has no hook for it. With KILLS=16 in the environment it is
killed at so many moments more, drawn at random, over as many changes as that takes; each kill takes some ten seconds.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bike_pipeline.data.embedded_dataset import split_demo
from bike_pipeline.errors import ExitCode
from bike_pipeline.model_registry import ModelRegistry
from bike_pipeline.retraining.events import Event
from bike_pipeline.settings import load_settings
from bike_pipeline.use_cases.retraining import open_ledger
from bike_pipeline.use_cases.retraining_executor import uploads_of
from tests.end_to_end.conftest import FEW_EPOCHS, Halves, Product

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]
# By the run's state, and whether it is on record what it pushed.
STEPS = (("claimed", False), ("ingested", False), ("trained", False), ("trained", True))
KILLS = int(os.environ.get("KILLS", "0"))
# Seconds from the start of a process; a run takes about twice as long, and goes on where it was.
MOST_SECONDS = 12.0
SETTINGS = (FEW_EPOCHS, "retraining.triggers=[]", "retraining.lease_seconds=1")


def standing(ledger: Path) -> tuple[str, bool]:
    """Return how far the newest run is."""
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True, timeout=30)) as connection:
        found = connection.execute("SELECT state, facts FROM ledger_runs ORDER BY number DESC LIMIT 1").fetchone()
    return (found[0], "pushed_version" in json.loads(found[1])) if found else ("", False)


def children(process: int) -> list[int]:
    """Return the processes that a process has started."""
    return [int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def killed(product: Product, due: Callable[[], bool]) -> bool:
    """Watch until it is due, and kill that process; what it has started must end by itself.

    Returns:
        False if the process ended before, with nothing left to do.
    """
    while True:
        watch = subprocess.Popen(
            product.command("watch", "--once"), cwd=product.source, env=product.environment(),
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        with watch:
            while watch.poll() is None and not due():
                time.sleep(0.005)
            if watch.poll() is None:
                left = children(watch.pid)
                os.kill(watch.pid, signal.SIGKILL)
                break
            if watch.returncode == 0:
                return False
            assert watch.stderr is not None
            # What a process that was killed has started may hold the workspace for a moment, and its lease lasts.
            assert watch.returncode == ExitCode.BUSY, watch.stderr.read()
    deadline = time.monotonic() + 300
    while any(Path(f"/proc/{one}").exists() for one in left):
        assert time.monotonic() < deadline, "the run goes on without the process that asked for it"
        time.sleep(0.1)
    return True


def finished(product: Product) -> None:
    """Watch until nothing is left to do."""
    while (done := product.call("watch", "--once")).code == ExitCode.BUSY:
        pass
    assert done.code == 0, done.err


@pytest.fixture(scope="module")
def product(run_halves: Halves, tmp_path_factory: pytest.TempPathFactory) -> Product:
    """A workspace where the model of 2011 serves, the rows of 2012 wait, and everything was killed and ended after."""
    product = Product(run_halves.copied(1, tmp_path_factory.mktemp("killed") / "workspace"), settings=SETTINGS)
    settings = load_settings(assignments=(f"workspace={product.workspace}", *SETTINGS))
    second = split_demo(product.workspace.parent / "uploads")[1]
    with second.open("rb") as stream:
        event = uploads_of(settings).store(
            stream, second.name, 10**9, lambda sha, path: Event("manual", "test", sha, second.name, "2012", path)
        )
    open_ledger(settings).see(event)
    ledger = product.workspace / "retraining" / "ledger.sqlite"
    for step in STEPS:
        assert killed(product, lambda step=step: standing(ledger) == step)
    finished(product)
    return product


def test_one_change_that_was_killed_at_each_step_is_one_run(product: Product) -> None:
    found: dict[str, Any] = product.call("triggers", "list", "--json").result
    assert [one["state"] for one in found["events"]] == ["promoted"]
    assert [one["state"] for one in found["runs"]] == ["promoted"]


def test_its_rows_are_one_version_and_its_model_was_promoted_once(product: Product) -> None:
    settings = load_settings(assignments=(f"workspace={product.workspace}", *SETTINGS))
    spans = [path.name for path in sorted(Path(settings.store_uri).glob("span-*/version-*"))]
    assert spans == ["version-0001", "version-0001"]
    registry = ModelRegistry(settings.serving_path)
    assert len(registry.versions()) == 2
    promoted = [change.to_version for change in registry.history() if change.action == "promote"]
    assert len(promoted) == len(set(promoted))
    assert promoted[-1] == registry.serving() == max(registry.versions())


def test_why_it_ran_stands_beside_the_pipeline_s_run(product: Product) -> None:
    run = product.call("triggers", "list", "--json").result["runs"][0]
    told = product.call("lineage", "--run", run["facts"]["run_id"])
    assert "manual: 2012" in told.out, told.out + told.err


@pytest.mark.skipif(not KILLS, reason="KILLS=16 in the environment kills it at so many moments more")
def test_killed_at_any_moment_every_change_is_one_run(product: Product) -> None:
    moments, changes, kills = random.Random(20), 0, 0
    settings = load_settings(assignments=(f"workspace={product.workspace}", *SETTINGS))
    while kills < KILLS:
        changes += 1
        # Another seed trains another model.
        changed = dataclasses.replace(product, settings=(*SETTINGS, f"seed={changes}"))
        open_ledger(settings).see(Event("manual", "test", f"{changes:064x}", f"seed {changes}", "another seed"))
        while kills < KILLS:
            ends = time.monotonic() + moments.uniform(0.0, MOST_SECONDS)
            if not killed(changed, lambda ends=ends: time.monotonic() >= ends):
                break
            kills += 1
        finished(changed)
    listed = product.call("triggers", "list", "--json").result
    assert {one["state"] for one in listed["events"]} <= {"promoted", "refused"}
    assert len(listed["events"]) == len(listed["runs"]) == 1 + changes
    pushed = [one["facts"]["pushed_version"] for one in listed["runs"] if "pushed_version" in one["facts"]]
    assert len(set(pushed)) == len(pushed)
    assert sorted(ModelRegistry(settings.serving_path).versions())[1:] == sorted(pushed)
    print(f"{kills} kills, {changes} changes, states {[one['state'] for one in listed['runs']]}")
