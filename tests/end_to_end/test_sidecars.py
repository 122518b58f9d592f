"""The three sidecars by their commands, on the workspace of a run, and one without."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bike_pipeline.errors import ExitCode
from tests.end_to_end.conftest import Halves, Product
from tests.monitoring.sidecars.test_service import ROW, Served

pytestmark = pytest.mark.slow


@contextmanager
def running(workspace: Path, kind: str, *options: str) -> Iterator[Served]:
    """Run a sidecar; yield what sends it events. It ends with 0 at SIGTERM."""
    product = Product(workspace)
    process = subprocess.Popen(
        product.command("monitor", "sidecar", kind, "--json", *options),
        env=product.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert told["kind"] == kind
        asked = Served(None)
        asked.port = int(told["address"].rpartition(":")[2])
        yield asked
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def said(asked: Served, *rows: dict[str, Any]) -> Any:
    status, event = asked.send({"instances": [*rows]})
    assert status == 200, event
    return event.get_data()["data"]


def test_each_sidecar_says_what_the_monitor_says_of_the_model_that_serves(run_halves: Halves) -> None:
    workspace = run_halves.folders[0]
    with running(workspace, "outlier") as asked:
        assert said(asked, ROW, {**ROW, "temp": 1.6})["is_outlier"] == [0, 1]
    with running(workspace, "drift", "--rows", "30") as asked:
        assert asked.send({"instances": [ROW] * 20})[0] == 202
        assert "range" in {one["meta"]["detector"] for one in said(asked, *[ROW] * 20)["verdicts"]}
    with running(workspace, "explainer") as asked:
        (one,) = said(asked, ROW)["explanations"]
        assert one["base"] + sum(part["value"] for part in one["parts"]) == pytest.approx(one["answer"])


def test_without_rows_or_a_model_a_sidecar_says_so_and_ends(tmp_path: Path) -> None:
    for kind in ("outlier", "drift", "explainer"):
        called = Product(tmp_path).call("monitor", "sidecar", kind)
        assert called.code == ExitCode.MONITORING, called.err
        assert called.err.count("\n") == 1
        assert "no rows to compare requests with" in called.err
    assert not list(tmp_path.iterdir())
