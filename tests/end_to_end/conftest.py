"""Whole runs in processes of their own, as a person starts them."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
# Enough for a model that is blessed, where nobody asks how good it is.
FEW_EPOCHS = "training.epochs=8"


@dataclass(frozen=True)
class Called:
    """What one call of the command line came to."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> dict[str, Any]:
        """The JSON that the call printed."""
        parsed: dict[str, Any] = json.loads(self.out)
        return parsed

    @property
    def states(self) -> dict[str, str]:
        """State by stage of a run that was called with --json."""
        return {stage["name"]: stage["state"] for stage in self.result["stages"]}


@dataclass(frozen=True)
class Product:
    """The command line on one workspace.

    Attributes:
        workspace: its workspace.
        source: folder that holds the package to run: this project, or an edited copy of it.
        settings: assignments that go with every call, such as `FEW_EPOCHS`.
    """

    workspace: Path
    source: Path = ROOT
    settings: tuple[str, ...] = ()

    def command(self, *arguments: str) -> list[str]:
        """Return the command for the given arguments; the workspace and the settings go with it."""
        takes_settings = arguments[0] != "data" or arguments[1] in ("ingest", "list", "verify")
        assignments = (f"workspace={self.workspace}", *self.settings) if takes_settings else ()
        settings = [text for assignment in assignments for text in ("--set", assignment)]
        return [sys.executable, "-m", "bike_pipeline.cli", *arguments, *settings]

    def environment(self) -> dict[str, str]:
        """Return the environment in which the package of `source` is found first."""
        return {**os.environ, "PYTHONPATH": str(self.source), "PYTHONDONTWRITEBYTECODE": "1"}

    def call(self, *arguments: str, text: str | None = None) -> Called:
        """Call the command line and wait for its end."""
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.source,
            env=self.environment(),
            input=text,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        return Called(done.returncode, done.stdout, done.stderr)

    def python(self, code: str) -> Called:
        """Run Python code in the product's environment, with the workspace as `sys.argv[1]`."""
        done = subprocess.run(
            [sys.executable, "-c", code, str(self.workspace)],
            cwd=self.source,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        return Called(done.returncode, done.stdout, done.stderr)

    def versions(self) -> list[str]:
        """Return the served versions, as TF Serving would see them, and anything else that lies there.

        What is promoted, its history and its lock belong there; a model server passes over what is no number.
        """
        folder = self.workspace / "serving" / "bike_demand"
        own = {"deployment.json", "deployment.jsonl", ".lock"}
        return sorted({path.name for path in folder.iterdir()} - own) if folder.is_dir() else []


@dataclass(frozen=True)
class Halves:
    """What the first two commands of the README come to, made once for all processes of a session.

    Attributes:
        texts: what `run --demo first` and `run --demo second` said.
        folders: the workspace after each of them, which nobody may change.
    """

    texts: tuple[str, str]
    folders: tuple[Path, Path]

    def copied(self, runs: int, workspace: Path) -> Path:
        """Copy the workspace after one or two runs to `workspace`, which may stand anywhere; return it."""
        workspace.parent.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copytree(self.folders[runs - 1], workspace))


@pytest.fixture(scope="session")
def run_halves(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Halves:
    """The workspaces after the first and the second half; copy one instead of running again."""
    own = tmp_path_factory.getbasetemp()
    shared = (own if worker_id == "master" else own.parent) / "halves"
    shared.mkdir(exist_ok=True)
    texts = [shared / "first.txt", shared / "second.txt"]
    folders = (shared / "first" / "workspace", shared / "second" / "workspace")
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not all(text.exists() for text in texts):
            product = Product(shared / "workspace")
            shutil.rmtree(shared / "workspace", ignore_errors=True)
            for half, text, folder in zip(("first", "second"), texts, folders, strict=True):
                done = product.call("run", "--demo", half)
                assert done.code == 0, done.out + done.err
                shutil.rmtree(folder, ignore_errors=True)
                shutil.copytree(product.workspace, folder)
                text.write_text(done.out, encoding="utf-8")
    first, second = (text.read_text(encoding="utf-8") for text in texts)
    return Halves((first, second), folders)


@pytest.fixture(scope="session")
def halves(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The two halves of the embedded data as upload files."""
    from bike_pipeline.data.embedded_dataset import split_demo

    return split_demo(tmp_path_factory.mktemp("uploads"))


@pytest.fixture(scope="session")
def edited(halves: tuple[Path, Path]) -> Callable[..., str]:
    """A function that returns a half's CSV text with every row passed through an edit."""

    def edit(half: int, change: Callable[[dict[str, str]], dict[str, str] | None]) -> str:
        rows = list(csv.DictReader(halves[half].open(encoding="utf-8")))
        out = io.StringIO()
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(row for row in map(change, rows) if row is not None)
        return out.getvalue()

    return edit


# Runs the command line, and writes down which of the heavy libraries it imported.
NOTING_IMPORTS = """
import atexit, sys
from pathlib import Path
from bike_pipeline import cli
heavy = ("tensorflow", "tfx", "apache_beam", "keras", "tensorflow_model_analysis", "tfx_bsl")
target = Path(sys.argv[1], "imported.txt")
atexit.register(lambda: target.write_text(" ".join(name for name in heavy if name in sys.modules)))
sys.argv = ["bike-pipeline", "run", "--json", "--set", f"workspace={sys.argv[1]}"]
cli.main()
"""


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory, edited: Callable[..., str]) -> dict[str, Any]:
    """The story of the product on the local runner: every chapter once, in order, on one workspace."""
    product = Product(tmp_path_factory.mktemp("story") / "workspace")
    chapters: dict[str, Any] = {"product": product}
    chapters["first"] = product.call("run", "--demo", "first", "--json")
    chapters["again"] = product.python(NOTING_IMPORTS)
    chapters["imported"] = (product.workspace / "imported.txt").read_text(encoding="utf-8")
    tracked = ("--set", f"tracking.mlflow.uri=sqlite:///{product.workspace}/mlflow/store.db")
    (product.workspace / "mlflow").mkdir()
    chapters["second"] = product.call("run", "--demo", "second", "--json", *tracked)
    chapters["page"] = product.call("explain-run")
    chapters["second again"] = product.call("run", "--json", *tracked)
    # Nothing listens on that port.
    down = ("--set", "tracking.mlflow.uri=http://127.0.0.1:1")
    chapters["worse"] = product.call("run", "--json", "--set", "training.learning_rate=1e-6", *down)
    strict = product.workspace / "strict.yaml"
    strict.write_text(
        yaml.safe_dump({"evaluation": {"value_thresholds": _with_an_impossible_slice()}}), encoding="utf-8"
    )
    chapters["slice"] = product.call("run", "--json", "--config", str(strict))
    chapters["versions"] = product.versions()

    def stuck_sensor(row: dict[str, str]) -> dict[str, str]:
        day = f"2013{row['dteday'][4:]}"
        return {**row, "dteday": day, "yr": "2", "temp": "0.98", **_calendar(day, row)}

    broken = product.workspace / "stuck.csv"
    broken.write_text(edited(1, lambda row: None if "02-29" in row["dteday"] else stuck_sensor(row)), encoding="utf-8")
    chapters["ingest anomalous"] = product.call("data", "ingest", str(broken))
    chapters["anomalous"] = product.call("run", "--json")
    chapters["runs"] = product.call("runs", "--json")
    chapters["models"] = product.call("models", "--json")
    return chapters


def _with_an_impossible_slice() -> list[dict[str, Any]]:
    from bike_pipeline.settings import load_settings

    shipped = [limit.model_dump(exclude_none=True) for limit in load_settings().evaluation.value_thresholds]
    return [
        *(limit for limit in shipped if limit["slicing"] == "overall"),
        {"metric": "mae", "slicing": "hour_band", "upper": 20},
    ]


def _calendar(day: str, row: dict[str, str]) -> dict[str, str]:
    from datetime import date

    weekday = date.fromisoformat(day).isoweekday() % 7
    working = int(weekday not in (0, 6) and row["holiday"] == "0")
    return {"weekday": str(weekday), "workingday": str(working)}
