"""The OpenTofu module, as far as the language's own program goes: syntax and layout, not what a provider would take."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.cluster.control_plane import program

FILE = Path(__file__).resolve().parents[2] / "configs" / "google-cloud" / "main.tf"


def judge(file: Path) -> subprocess.CompletedProcess[str]:
    """Ask whether a file parses and is laid out as `tofu fmt` would."""
    command = [program("hclfmt"), "-check", "-require-no-change", str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_module_parses_and_is_formatted() -> None:
    done = judge(FILE)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('role   = "roles/storage', 'role = "roles/storage'),
        ("versioning {", "versioning"),
        ('"${var.project}-', '"${var.'),
    ],
    ids=["another layout", "no block", "no expression"],
)
def test_what_does_not_parse_or_is_not_formatted_is_refused(tmp_path: Path, before: str, after: str) -> None:
    text = FILE.read_text(encoding="utf-8")
    assert before in text
    file = tmp_path / "main.tf"
    file.write_text(text.replace(before, after), encoding="utf-8")
    assert judge(file).returncode != 0


def test_every_reference_is_to_something_that_the_module_has() -> None:
    text = FILE.read_text(encoding="utf-8")
    variables = set(re.findall(r'^variable "(\w+)"', text, re.MULTILINE))
    resources = {".".join(pair) for pair in re.findall(r'^resource "(\w+)" "(\w+)"', text, re.MULTILINE)}
    assert set(re.findall(r"\bvar\.(\w+)", text)) == variables
    assert set(re.findall(r"\b(google_\w+\.\w+)\.\w+", text)) <= resources
