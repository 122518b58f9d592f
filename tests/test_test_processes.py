"""How the tests themselves are run: what a process that ends in the middle of a test leaves behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CRASHING = """
import os
import pytest

@pytest.mark.parametrize("number", range(5))
def test_numbers(number):
    if number == 3:
        os._exit(1)
"""


def run_tests(folder: Path, **files: str) -> str:
    """Return what pytest says of the test files, run by two processes as `make pytest` runs them."""
    (folder / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n")
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    options = ("-q", "-p", "tests.conftest", "--no-loadscope-reorder", "--numprocesses", "2", "-rf")
    environment = {"PYTHONPATH": str(ROOT), "PATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", *options, str(folder)]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    return done.stdout + done.stderr


def test_a_process_that_dies_costs_its_test_and_no_other(tmp_path: Path) -> None:
    """The files are two, since a process is given the next one while it still has tests of the one before."""
    more = CRASHING.replace("== 3", "== -1")
    told = run_tests(tmp_path, test_a=CRASHING, test_b=more, test_c=more)
    assert "FAILED test_a.py::test_numbers[3]" in told or "crashed while running 'test_a.py::test_numbers[3]'" in told
    assert "1 failed, 14 passed" in told


@pytest.mark.parametrize("silenced", ["getLogger()", "getLogger().handlers[-1]"])
def test_a_test_that_silences_the_warnings_of_later_ones_fails(silenced: str, tmp_path: Path) -> None:
    silencing = f"import logging\n\ndef test_quiet():\n    logging.{silenced}.setLevel(logging.ERROR)\n"
    told = run_tests(tmp_path, test_a=silencing, test_b="def test_other():\n    pass\n")
    assert "logging was" in told
    assert "2 passed, 1 error" in told
