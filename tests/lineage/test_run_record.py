"""What a run was made of: written once, read back whole, and honest about what is missing."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from bike_pipeline import features
from bike_pipeline.lineage.records import run_record as code
from bike_pipeline.lineage.records.run_record import (
    CONTENT_CONTEXT,
    RUN_CONTEXT,
    command_line,
    record_run,
    source_of_run,
    source_of_this_run,
)
from bike_pipeline.settings import PROJECT_ROOT, load_settings
from tests.recording import Recorder


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    """An empty store."""
    return Recorder(tmp_path / "metadata.sqlite")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small project under git: a package, a runner, the settings and something that no run reads."""
    root = tmp_path / "project"
    for name in ("bike_pipeline/__init__.py", "runners/local.py", "configs/base.yaml", "docs/page.md"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("first\n", encoding="utf-8")
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-qm", "first")
    return root


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True, text=True).stdout


def test_a_record_is_read_back_as_it_was_written(recorder: Recorder) -> None:
    settings = load_settings(assignments=("seed=7", "training.epochs=3"))
    written = source_of_this_run(settings, "run-1", "local")
    record_run(recorder.store, written)
    read, missing = source_of_run(recorder.store, "run-1")
    assert missing == ()
    assert read == written
    assert written.seed == 7
    assert written.settings["training"]["epochs"] == 3
    assert written.schema_sha256 == hashlib.sha256(settings.schema_path.read_bytes()).hexdigest()
    assert [entry["name"] for entry in written.features] == list(features.BY_NAME)
    assert written.environment["tensorflow"].startswith("2.")
    assert "bike_pipeline/modeling/training.py" in written.code.files


def test_what_stays_the_same_is_stored_once(recorder: Recorder) -> None:
    settings = load_settings()
    for run in ("run-1", "run-2"):
        record_run(recorder.store, source_of_this_run(settings, run, "local"))
    assert len(recorder.store.get_contexts_by_type(CONTENT_CONTEXT)) == 4
    record_run(recorder.store, source_of_this_run(load_settings(assignments=("seed=8",)), "run-3", "local"))
    # Only the settings are others.
    assert len(recorder.store.get_contexts_by_type(CONTENT_CONTEXT)) == 5


def test_the_first_record_of_a_run_stays(recorder: Recorder) -> None:
    first = source_of_this_run(load_settings(), "run-1", "local")
    record_run(recorder.store, first)
    record_run(recorder.store, replace(first, runner="another", seed=1))
    read, _ = source_of_run(recorder.store, "run-1")
    assert read is not None
    assert (read.runner, read.seed) == ("local", first.seed)


def test_a_record_joins_a_context_that_tfx_made(recorder: Recorder) -> None:
    recorder.execution("Trainer", "run-1", other="property")
    record_run(recorder.store, source_of_this_run(load_settings(), "run-1", "kubeflow"))
    assert len(recorder.store.get_contexts_by_type(RUN_CONTEXT)) == 1
    read, missing = source_of_run(recorder.store, "run-1")
    assert (read is not None, missing) == (True, ())


def test_an_absent_or_damaged_record_is_named(recorder: Recorder) -> None:
    recorder.execution("Trainer", "older")
    assert source_of_run(recorder.store, "older") == (None, ("the record of the run",))
    assert source_of_run(recorder.store, "never") == (None, ("the record of the run",))
    written = source_of_this_run(load_settings(), "run-1", "local")
    record_run(recorder.store, written)
    (kept,) = [c for c in recorder.store.get_contexts_by_type(CONTENT_CONTEXT) if c.name == written.settings_sha256]
    kept.custom_properties["content"].string_value = "{}"
    recorder.store.put_contexts([kept])
    read, missing = source_of_run(recorder.store, "run-1")
    assert missing == ("the settings of the run's record",)
    assert read is not None
    assert (read.settings, read.code) == ({}, written.code)
    (run,) = [c for c in recorder.store.get_contexts_by_type(RUN_CONTEXT) if c.name == "run-1"]
    half = run.custom_properties["run_record"].string_value[:-20]
    run.custom_properties["run_record"].string_value = half
    recorder.store.put_contexts([run])
    with pytest.raises(ValueError, match="line 1"):
        json.loads(half)
    assert source_of_run(recorder.store, "run-1") == (None, ("the record of the run (damaged)",))


def test_the_commit_and_whether_the_tree_is_dirty(project: Path) -> None:
    clean = code.code_version(project)
    assert clean.commit == git(project, "rev-parse", "HEAD").strip()
    assert clean.dirty is False
    (project / "docs/page.md").write_text("changed\n", encoding="utf-8")
    assert code.code_version(project) == clean
    (project / "configs/base.yaml").write_text("changed\n", encoding="utf-8")
    changed = code.code_version(project)
    assert (changed.dirty, changed.source_sha256) == (True, clean.source_sha256)


def test_every_edit_and_every_new_file_changes_the_hash(project: Path) -> None:
    before = code.code_version(project)
    (project / "runners/local.py").write_text("second\n", encoding="utf-8")
    edited = code.code_version(project)
    (project / "bike_pipeline/more.py").write_text("", encoding="utf-8")
    added = code.code_version(project)
    assert len({before.source_sha256, edited.source_sha256, added.source_sha256}) == 3
    assert added.dirty is True
    assert set(added.files) == {"bike_pipeline/__init__.py", "bike_pipeline/more.py", "runners/local.py"}


def test_without_git_the_image_names_the_commit(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(project / ".git")
    assert (code.code_version(project).commit, code.code_version(project).dirty) == ("", None)
    monkeypatch.setenv(code.COMMIT_VARIABLE, "abc123")
    assert code.code_version(project).commit == "abc123"
    monkeypatch.setenv("PATH", "")
    assert code.code_version(project).commit == "abc123"


def test_a_package_inside_of_another_repository_is_not_taken_for_it(project: Path) -> None:
    (project / ".gitignore").write_text(".venv\n", encoding="utf-8")
    inner = project / ".venv" / "lib"
    shutil.copytree(project / "bike_pipeline", inner / "bike_pipeline")
    assert code.code_version(inner).commit == ""


def test_this_very_project_is_hashed() -> None:
    files = code.source_files()
    own = PROJECT_ROOT / "bike_pipeline" / "lineage" / "records" / "run_record.py"
    assert files["bike_pipeline/lineage/records/run_record.py"] == hashlib.sha256(own.read_bytes()).hexdigest()


def test_an_installed_package_names_its_runners_as_a_checkout_does(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PROJECT_ROOT / "bike_pipeline", tmp_path / "bike_pipeline", ignore=ignored)
    assert not (tmp_path / "bike_pipeline" / "runners").is_symlink()
    assert code.source_files(tmp_path) == code.source_files()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["/usr/bin/bike-pipeline", "run", "--demo", "second"], "bike-pipeline run --demo second"),
        (["bike-pipeline"], "bike-pipeline"),
        (["src/bike_pipeline/cli.py", "run", "--config", "my file.yaml"], "bike-pipeline run --config 'my file.yaml'"),
        (["bike-pipeline", "run", "--set", "a.b=hidden", "--json"], "bike-pipeline run --set a.b=… --json"),
        (["bike-pipeline", "run", "--set=a.b=hidden"], "bike-pipeline run --set=a.b=…"),
        (["bike-pipeline", "run", "--set", "hidden"], "bike-pipeline run --set …"),
        (["bike-pipeline", "run", "--config", "https://me:hidden@h/c"], "bike-pipeline run --config https://h/c"),
        (["/opt/pytest", "run", "--demo", "second"], ""),
        (["elsewhere/cli.py", "run"], ""),
    ],
)
def test_the_command_line_is_one_line_without_values_of_settings(argv: list[str], said: str) -> None:
    assert command_line(argv) == said


def test_without_arguments_the_command_line_is_that_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["bike-pipeline", "run"])
    assert command_line() == "bike-pipeline run"
