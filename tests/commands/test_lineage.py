"""`lineage`, `lineage diff` and `lineage --impact`, from the command line."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bike_pipeline.commands.lineage import lineage_command
from bike_pipeline.errors import MetadataError, ModelError
from bike_pipeline.model_registry import ModelRegistry, layout
from tests.lineage.world import FIRST, SECOND, Runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Two runs; only read."""
    return Runs(tmp_path_factory.mktemp("world")).two()


def call(workspace: Path, *arguments: str) -> str:
    done = CliRunner().invoke(lineage_command, [*arguments, "--set", f"workspace={workspace}"])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


def test_without_a_word_it_shows_the_model_that_serves(runs: Runs) -> None:
    shown = call(runs.workspace)
    assert shown == call(runs.workspace, "--serving") == call(runs.workspace, str(SECOND))
    assert shown == call(runs.workspace, "show", str(runs.models[1].id))
    lines = shown.splitlines()
    assert f"served as version {SECOND} (serving now)" in lines[0]
    order = ("PushedModel", "── Pusher", "── Trainer", "examples: Examples", "── CsvExampleGen", "manifest sha256")
    tree = shown[shown.index("from here back to the rows") :]
    places = [tree.index(name) for name in order]
    assert places == sorted(places)
    assert "transform_graph: TransformGraph" in tree
    for text in ("looked at by StatisticsGen", "looked at by DataGate", "train/data.csv", "mae, overall: 40.0"):
        assert text in shown
    assert "…" not in shown.replace("…,", "").replace("… ", "").replace("…\n", "")


def test_every_format_and_a_file_of_each(runs: Runs, tmp_path: Path) -> None:
    assert json.loads(call(runs.workspace, "--format", "json"))["graph"]["nodes"]
    assert call(runs.workspace, str(FIRST), "--format", "dot").startswith("digraph")
    for form in ("text", "json", "dot", "html"):
        path = tmp_path / f"lineage.{form}"
        assert call(runs.workspace, "--format", form, "--output", str(path)) == f"wrote {path}\n"
        assert "PushedModel" in path.read_text(encoding="utf-8")


def test_a_run_is_shown_by_its_name(runs: Runs) -> None:
    assert "run run-1: pushed as version" in call(runs.workspace, "--run", "run-1")


def test_impact_names_every_model(runs: Runs) -> None:
    shown = call(runs.workspace, "--impact", "1/1")
    assert "trained on as history" in shown
    # Nothing lies in the serving folder yet.
    assert f"{SECOND} (serving)" not in shown
    model = Path(runs.models[1].uri)
    record = {"fingerprint": layout.fingerprint(model), "exports_fingerprint": ""}
    ModelRegistry(runs.settings.serving_path).add(model, SECOND, record)
    assert f"{SECOND} (serving)" in call(runs.workspace, "--impact", "1/1")
    plain = json.loads(call(runs.workspace, "--impact", "1/1", "--format", "json"))
    assert [seen["model_id"] for seen in plain["sightings"]] == [model.id for model in runs.models]


def test_diff_shows_what_changed_and_what_did_not(runs: Runs) -> None:
    shown = call(runs.workspace, "diff", str(FIRST), str(runs.models[1].id))
    assert "overall mae" in shown
    assert "the same: schema, features, code, settings, environment" in shown
    plain = json.loads(call(runs.workspace, "diff", str(FIRST), str(SECOND), "--json"))
    assert {entry["part"] for entry in plain["differences"]} == {"data", "metrics"}


def test_questions_that_exclude_each_other_are_a_wrong_command_line(runs: Runs) -> None:
    for arguments in (["7", "--serving"], ["--impact", "1/1", "--run", "x"], ["--impact", "1", "--format", "dot"]):
        done = CliRunner().invoke(lineage_command, [*arguments, "--set", f"workspace={runs.workspace}"])
        assert done.exit_code == 2, done.output


def test_what_is_not_there_is_one_clear_error(runs: Runs, tmp_path: Path) -> None:
    for arguments in (("77",), ("diff", str(FIRST), "77"), ("no/such/folder",)):
        with pytest.raises(ModelError, match="there is no model"):
            call(runs.workspace, *arguments)
    with pytest.raises(MetadataError, match="no metadata store"):
        call(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()
    Runs(tmp_path / "fresh")
    with pytest.raises(ModelError, match="no model has been pushed yet"):
        call(tmp_path / "fresh")


def test_a_half_written_store_is_one_clear_error(tmp_path: Path) -> None:
    runs = Runs(tmp_path).two()
    content = runs.settings.metadata_file.read_bytes()
    runs.settings.metadata_file.write_bytes(content[: len(content) // 2])
    with pytest.raises(MetadataError) as error:
        call(tmp_path)
    assert "\n" not in str(error.value)


def test_a_store_of_an_older_schema_is_one_clear_error(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    with sqlite3.connect(runs.settings.metadata_file) as database:
        database.execute("UPDATE MLMDEnv SET schema_version = 3")
    with pytest.raises(MetadataError) as error:
        call(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_locked_store_is_one_clear_error(tmp_path: Path) -> None:
    runs = Runs(tmp_path).two()
    # Locks on a file do not hold within one process.
    code = (
        "import sqlite3, sys\ndatabase = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "database.execute('BEGIN EXCLUSIVE')\nprint('locked', flush=True)\nsys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(runs.settings.metadata_file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(MetadataError) as error:
            call(tmp_path)
        other.stdin.close()
    assert "\n" not in str(error.value)


def test_it_needs_no_tensorflow(runs: Runs) -> None:
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom bike_pipeline.commands.lineage import lineage_command\n"
        "for words in ([], ['--format', 'html'], ['--impact', '1/1'], ['diff', sys.argv[2], sys.argv[3]]):\n"
        "    done = CliRunner().invoke(lineage_command, [*words, '--set', 'workspace=' + sys.argv[1]])\n"
        "    assert done.exit_code == 0, done\n"
        "print(*sorted({'tensorflow', 'tfx', 'apache_beam', 'keras'} & set(sys.modules)))"
    )
    arguments = [str(runs.workspace), str(FIRST), str(SECOND)]
    done: Any = subprocess.run(
        [sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True, timeout=100
    )
    assert done.stdout.strip() == ""
