"""The examples of docs/python.md, in one process without a terminal, on a workspace with two models."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.conftest import ROOT, Halves

pytestmark = pytest.mark.slow

# Every result that a use case gives without a run of minutes, as JSON.
RESULTS = """
import json
from dataclasses import asdict, is_dataclass
from pathlib import Path
results = [result, verification, matrix, workspace.history(), workspace.runs(), workspace.models(), workspace.spans(),
           workspace.reproducibility(), workspace.impact("1/1"), workspace.lineage(), workspace.doctor(),
           workspace.collect_garbage(dry_run=True), workspace.feedback(), workspace.push_edge(), workspace.rollback(),
           workspace.promote()]
first, second = (str(model.model_id) for model in workspace.models())
results.append(workspace.compare(first, second))
assert str(workspace.explain_run()).endswith(".html")
files = workspace.serving_configuration(Path("tf-serving"))
assert files == workspace.serving_configuration(Path("tf-serving"), check=True)
for found in results:
    for one in found if isinstance(found, list) else [found]:
        assert is_dataclass(one), one
        assert json.loads(json.dumps(asdict(one), default=str)), one
"""


def test_the_examples_of_the_page_run_in_their_order(run_halves: Halves, tmp_path: Path) -> None:
    run_halves.copied(2, tmp_path / "workspace")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    examples = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(examples) >= 8
    (tmp_path / "page.py").write_text("\n".join([*examples, RESULTS]), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "page.py"], cwd=tmp_path, check=False, capture_output=True, text=True, timeout=500,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    version, serving = lines[0].split()
    assert version == serving
    for expected in (
        "checks passed",
        "rentals an hour",
        "version 1 is not",
        "Pusher cached",
        "True",
        f"version {version}",
    ):
        assert any(expected in line for line in lines), (expected, done.stdout)
