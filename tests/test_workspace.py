"""`Workspace`: what programs call instead of commands."""

from __future__ import annotations

import subprocess
import sys

import pytest

import bike_pipeline
from bike_pipeline import Workspace
from bike_pipeline.errors import ConfigurationError


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
