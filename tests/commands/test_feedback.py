"""`feedback` where there is nothing to correct, and the way back; tests/end_to_end/test_feedback.py runs the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from bike_pipeline import Workspace, cli
from bike_pipeline.errors import BusyError, ModelError
from bike_pipeline.model_registry import ModelRegistry, layout
from bike_pipeline.modeling import feedback, feedback_record
from bike_pipeline.modeling.feedback import Labels
from bike_pipeline.modeling.feedback_record import FEEDBACK_FILE, Feedback
from bike_pipeline.settings.training import FeedbackSettings
from bike_pipeline.storage.atomic_files import workspace_lock
from tests.conftest import TRAINING
from tests.data.making import make_rows, to_csv
from tests.recording import Recorder


def push(workspace: Workspace, version: int, model_id: int = 7, kept: Feedback | None = None) -> None:
    """Push a version of a model and promote it; without `kept` it is one of a release before there was feedback."""
    registry = ModelRegistry(workspace.settings.serving_path)
    folder = workspace.settings.workspace_path / f"model-{version}"
    (folder / "assets.extra").mkdir(parents=True)
    (folder / "saved_model.pb").write_text(f"graph {version}", encoding="utf-8")
    if kept is not None:
        (folder / "assets.extra" / FEEDBACK_FILE).write_text(kept.to_json(), encoding="utf-8")
    record = {"model_id": model_id, "fingerprint": layout.fingerprint(folder)}
    registry.begin()
    registry.add(folder, version, record)
    registry.set_validated(version, passed=True, reason="a test")
    registry.promote(version)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace")


def known(days: int, level: float = 1.2) -> Feedback:
    """Return what is known after some days of labels that are all so many times what was expected."""
    count = np.arange(24 * days)
    hours = 24 * (365 + 7) + count
    groups = (count % 24) % feedback.BANDS
    settings = FeedbackSettings.model_validate(TRAINING["feedback"])
    return Feedback(settings).updated(Labels(hours, groups, 0 * hours + 100.0 * level, 0 * hours + 100.0))


def shown(workspace: Workspace, *arguments: str) -> str:
    folder = workspace.settings.workspace_path
    done = CliRunner().invoke(cli.command, ["feedback", "show", *arguments, "--set", f"workspace={folder}"])
    assert done.exit_code == 0, done.output
    return done.output


def test_without_a_model_there_is_nothing_to_show(workspace: Workspace) -> None:
    with pytest.raises(ModelError, match="no model is served"):
        workspace.feedback()


def test_a_model_of_an_earlier_release_takes_no_labels(workspace: Workspace) -> None:
    push(workspace, 1)
    with pytest.raises(
        ModelError, match=r"version 1 cannot follow: it takes no labels: an earlier release.*Train again"
    ):
        workspace.feedback()


def test_a_state_that_cannot_be_read_is_one_clear_error(workspace: Workspace, monkeypatch: Any) -> None:
    push(workspace, 1, kept=known(1))
    monkeypatch.setattr(feedback_record, "FORMAT", 2)
    with pytest.raises(ModelError, match="its state of feedback cannot be read"):
        workspace.feedback()


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("2012-01-15", "the state says nothing of hours up to its last label"),
        ("2012-02-01", "labels are 4 days old; the level counts whole"),
        ("2012-02-22T23:00", "stale: labels are 26 days old; the level has waned to 71%"),
        ("2012-06-01", "none any more: labels are 125 days old"),
    ],
)
def test_show_tells_how_much_the_labels_count(workspace: Workspace, at: str, expected: str) -> None:
    push(workspace, 1, kept=known(20))
    text = shown(workspace, "--at", at)
    assert expected in text
    assert "labels: 480 hours from 2012-01-08 00:00 to 2012-01-27 23:00" in text
    found = json.loads(shown(workspace, "--at", at, "--json"))
    assert (found["version"], found["model_id"], found["updates"], found["backtest"]) == (1, 7, 1, None)
    assert len(found["groups"]) == feedback.GROUPS
    assert max(group["factor"] for group in found["groups"]) == pytest.approx(1.19, abs=0.02)
    for group in found["groups"]:
        low, high = group["interval"]
        assert low < 100.0 < high or low == pytest.approx(high, abs=20.0)


def test_a_model_that_knows_no_label_says_so(workspace: Workspace) -> None:
    push(workspace, 1, kept=Feedback(FeedbackSettings.model_validate(TRAINING["feedback"])))
    assert "no labels are known: nothing is corrected" in shown(workspace)
    found = json.loads(shown(workspace, "--json"))
    assert (found["labels"], found["as_of"], found["weight"]) == (0, "", 0.0)


def test_rollback_goes_back_within_a_model_only(workspace: Workspace) -> None:
    with pytest.raises(ModelError, match="what served before is nothing"):
        workspace.rollback_feedback()
    push(workspace, 1, model_id=6, kept=known(1))
    push(workspace, 2, kept=known(1))
    push(workspace, 3, kept=known(2))
    change = workspace.rollback_feedback("too high")
    assert (change.from_version, change.to_version, change.reason) == (3, 2, "too high")
    with pytest.raises(ModelError, match=r"what served before, version 1, is another model.*`bike-pipeline rollback`"):
        workspace.rollback_feedback()
    assert ModelRegistry(workspace.settings.serving_path).serving() == 2


def test_an_update_beside_a_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "workspace").mkdir()
    # Of a run that did not come to a model.
    Recorder(tmp_path / "workspace" / "metadata.sqlite")
    workspace, rows = Workspace(tmp_path / "workspace"), tmp_path / "rows.csv"
    rows.write_bytes(to_csv(make_rows(days=1)))
    with workspace_lock(tmp_path / "workspace", wait=False), pytest.raises(BusyError, match="another run is working"):
        workspace.update_feedback(rows)
    with pytest.raises(ModelError, match="no model is served"):
        workspace.update_feedback(rows)
