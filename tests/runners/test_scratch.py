"""Whatever a run puts aside ends with it, or with the next one where it was killed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bike_pipeline.runners.scratch import scratch

DIES = """
import os, sys, tempfile
from pathlib import Path
from bike_pipeline.runners.scratch import scratch
with scratch(Path(sys.argv[1])):
    print(tempfile.mkdtemp(prefix="beam-pipeline-temp"), flush=True)
    os.kill(os.getpid(), 9)
"""


def test_temporary_folders_of_the_run_and_of_its_processes_end_with_it(tmp_path: Path) -> None:
    before = tempfile.gettempdir()
    with scratch(tmp_path):
        made = Path(tempfile.mkdtemp(prefix="bike-exports-"))
        command = [sys.executable, "-c", "import tempfile; print(tempfile.mkdtemp())"]
        child = Path(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip())
        assert made.is_dir()
        assert child.parent == made.parent
    assert not made.parent.exists()
    assert tempfile.gettempdir() == before
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    made = []

    def interrupted() -> None:
        with scratch(tmp_path):
            made.append(Path(tempfile.mkdtemp()))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not made[0].exists()


def test_what_a_killed_run_left_is_cleared_by_the_next_one(tmp_path: Path) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", DIES, str(tmp_path)], capture_output=True, text=True, check=False, timeout=60
    )
    left = Path(killed.stdout.strip())
    assert killed.returncode == -9
    assert left.is_dir()
    with scratch(tmp_path):
        assert not left.parent.exists()


@pytest.mark.parametrize("note", ["", "bike-run-x", "/", "{folder}/kept", "\0"])
def test_a_note_that_names_something_else_clears_nothing(tmp_path: Path, note: str) -> None:
    workspace, kept = tmp_path / "w", tmp_path / "kept"
    workspace.mkdir()
    kept.mkdir()
    (workspace / "run.scratch").write_text(note.format(folder=tmp_path), encoding="utf-8")
    with scratch(workspace):
        pass
    assert kept.is_dir()
    assert list(workspace.iterdir()) == []
