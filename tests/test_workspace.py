"""`Workspace`: what programs call instead of commands."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import bike_pipeline
from bike_pipeline import Workspace
from bike_pipeline.errors import ConfigurationError
from bike_pipeline.run_events import RunResult
from bike_pipeline.use_cases import serving
from tests.data.making import make_rows, to_csv

ROOT = Path(__file__).resolve().parents[1]


def test_the_package_itself_loads_nothing_until_the_workspace_is_asked_for():
    code = (
        "import sys, bike_pipeline\n"
        "before = {'pydantic', 'yaml', 'bike_pipeline.workspace'} & set(sys.modules)\n"
        "from bike_pipeline import Workspace\n"
        "print(sorted(before), Workspace.__name__, sorted({'click', 'rich', 'tensorflow', 'tfx'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[] Workspace []\n"
    with pytest.raises(AttributeError, match="no attribute 'Workplace'"):
        _ = bike_pipeline.Workplace


def test_settings_come_from_the_folder_the_file_and_single_values_in_this_order(tmp_path):
    overlay = tmp_path / "own.yaml"
    overlay.write_text("workspace: elsewhere\ntraining: {epochs: 3, dropout: 0.25}\n", encoding="utf-8")
    values = {"training.epochs": 7, "serving.model_name": "yes", "training.hidden_units": [8, 4]}
    found = Workspace(tmp_path / "own: 1", config=overlay, values=values).settings
    assert found.workspace_path == tmp_path / "own: 1"
    assert (found.training.epochs, found.training.dropout, found.training.hidden_units) == (7, 0.25, (8, 4))
    assert found.serving.model_name == "yes"
    assert str(Workspace(config=overlay).settings.workspace) == "elsewhere"


def test_a_wrong_value_is_an_error_of_ours():
    with pytest.raises(ConfigurationError, match=r"training\.epochs"):
        Workspace(values={"training.epochs": "many"})


def test_rows_are_ingested_listed_and_verified(tmp_path):
    upload = tmp_path / "upload.csv"
    upload.write_bytes(to_csv(make_rows(days=5)))
    workspace = Workspace(tmp_path / "workspace")
    result = workspace.ingest(upload)
    assert (result.created, result.rejected, result.version.manifest.rows.total) == (True, 0, 120)
    assert workspace.spans() == workspace.verify_data(1, 1) == workspace.verify_data() == [result.version]
    with pytest.raises(ConfigurationError, match="Name the span"):
        workspace.verify_data(version=1)
    record = workspace.withdraw_span(1, 1, "refused by the gate")
    assert (workspace.spans(), workspace.withdrawn_spans()) == ([], [record])
    assert workspace.verify_data() == [workspace.restore_span(1, 1)] == workspace.spans(withdrawn=True)


def test_the_doctor_looks_at_this_workspace(tmp_path):
    checks = {check.name: check for check in Workspace(tmp_path / "own").doctor()}
    assert checks["workspace"].state == "ok"
    assert str(tmp_path / "own") in checks["workspace"].found


class _Elsewhere:
    """A runner as a third party writes one."""

    def __init__(self, settings, observer, wait=False):
        self.observer = observer

    def run(self, enable_cache=True, accept_baseline_reset=False):
        self.observer.planned(["Trainer"])
        return RunResult("run-1", (), None, False, {"cache": enable_cache}, "")


def test_a_runner_of_a_third_party_is_found_by_its_entry_point(tmp_path, monkeypatch):
    folder = tmp_path / "elsewhere-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1\n", encoding="utf-8")
    point = f"[bike_pipeline.runners]\nelsewhere = {__name__}:_Elsewhere\n"
    (folder / "entry_points.txt").write_text(point, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    workspace = Workspace(tmp_path / "workspace")
    result = workspace.run(runner="elsewhere", cache=False)
    # Not blessed is a result; nothing serves, and no other store than the workspace's own is asked.
    assert (result.pushed_version, result.promoted_version, result.tracking) == (None, None, "")
    assert result.decisions == {"cache": False}
    with pytest.raises(ConfigurationError, match=r"no runner 'nowhere'.*beam, elsewhere, kubeflow, local"):
        workspace.run(runner="nowhere")
    with pytest.raises(ConfigurationError, match="--local belongs to --runner kubeflow"):
        workspace.run(local=True)
    assert not (tmp_path / "workspace").exists()


def test_a_method_is_its_use_case_with_the_settings_filled_in():
    shown = inspect.signature(Workspace("workspace").promote)
    assert list(shown.parameters) == ["version", "label", "reason"]
    assert Workspace.promote.__doc__ == serving.promote.__doc__


def test_the_page_names_every_method():
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    table = page[page.index("## What it can do") : page.index("## Results")]
    named = set(re.findall(r"`(\w+)`", table))
    assert named == {name for name in vars(Workspace) if not name.startswith("_")}


def test_a_result_is_shown_without_its_report() -> None:
    from bike_pipeline.use_cases.run import CompletedRun

    result = CompletedRun("a run", (), 17, True, {"decisions": ["of a page"]}, "serving/17", 17, "")
    assert "17" in repr(result)
    assert "of a page" not in repr(result)
