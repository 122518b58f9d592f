"""Whole runs in processes of their own, as a person starts them."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


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
    """

    workspace: Path
    source: Path = ROOT

    def command(self, *arguments: str) -> list[str]:
        """Return the command for the given arguments; the workspace goes with it."""
        takes_settings = arguments[0] != "data" or arguments[1] in ("ingest", "list", "verify")
        settings = ["--set", f"workspace={self.workspace}"] if takes_settings else []
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
        """Return the served versions, as TF Serving would see them, and anything else that lies there."""
        folder = self.workspace / "serving" / "bike_demand"
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


@pytest.fixture(scope="session")
def halves(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The two halves of the embedded data as upload files."""
    from bike_pipeline.data.demo import split_demo

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
