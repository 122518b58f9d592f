"""The README is true: its commands are run, in their order, and its links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Halves

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# Running the tests from within the tests would never end; CI calls the demo, which takes minutes, by itself; the
# shell's own command has nothing to run.
NOT_RUN = {"make test", "make demo", "source .venv/bin/activate"}


def commands() -> list[str]:
    """Return the lines of the README's `sh` blocks, in order."""
    blocks = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def product_command(line: str) -> list[str]:
    """Return what a line of the README calls: for a Make target, the program in its recipe."""
    if line.startswith("make "):
        # Make may have started these tests, with further arguments for them.
        outer = ("MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS", "ARGS")
        dry = subprocess.run(
            ["make", "-n", *shlex.split(line)[1:]],
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if name not in outer},
            capture_output=True,
            text=True,
            check=True,
        )
        line = next(recipe for recipe in dry.stdout.splitlines() if "bin/bike-pipeline" in recipe)
    program, *arguments = shlex.split(line)
    assert Path(program).name == "bike-pipeline", line
    return [sys.executable, "-m", "bike_pipeline.cli", *arguments]


@pytest.mark.slow
def test_commands_do_what_the_readme_says(tmp_path: Path, run_halves: Halves) -> None:
    outputs: dict[str, str] = {}
    lines = [line for line in commands() if line not in NOT_RUN]
    assert lines[:2] == ["make run", "make retrain"]
    called = [product_command(line)[3:] for line in lines[:2]]
    assert called == [["run", "--demo", "first"], ["run", "--demo", "second"]]
    outputs.update(zip(lines[:2], run_halves.texts, strict=True))
    run_halves.copied(2, tmp_path / "workspace")
    for line in lines[2:]:
        done = subprocess.run(
            product_command(line),
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        outputs[line] = done.stdout
    shown = re.search(r"```text\n([^`]*✔.*?)```", README, flags=re.DOTALL)
    assert shown
    stages = [line.split()[1] for line in shown[1].splitlines() if line.startswith("✔")]
    assert [line.split()[0] for line in outputs["make run"].splitlines() if " done " in line] == stages
    claimed = re.search(r"MAE ([\d.]+), RMSE ([\d.]+): blessed", shown[1])
    measured = re.search(r"MAE ([\d.]+), RMSE ([\d.]+): blessed", outputs["make run"])
    assert claimed
    assert measured
    assert float(measured[1]) == pytest.approx(float(claimed[1]), rel=0.05)
    assert "against the baseline" in outputs["make retrain"]
    assert outputs["bike-pipeline models"].count("(serving)") == 1
    assert outputs["bike-pipeline runs"].count("pushed as version") == 2


def test_tests_are_what_make_test_runs() -> None:
    assert "make test" in commands()


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), target


def test_documented_exit_codes_are_all() -> None:
    from bike_pipeline.errors import ExitCode

    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", page, flags=re.MULTILINE)}
    assert documented == {int(code) for code in ExitCode}
