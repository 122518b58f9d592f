from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from bike_pipeline.commands.data import data_command as command
from bike_pipeline.data.spans import SpanStore
from bike_pipeline.errors import ConfigurationError, DataError
from tests.data.making import make_rows, serving, to_csv


@pytest.fixture
def call(tmp_path):
    def run(*arguments, succeeds=True):
        options = () if "--help" in arguments else ("--set", f"workspace={tmp_path / 'workspace'}")
        done = CliRunner().invoke(command, [*map(str, arguments), *options])
        if succeeds and done.exception:
            raise done.exception
        return done

    return run


@pytest.fixture
def upload(tmp_path):
    path = tmp_path / "upload.csv"
    path.write_bytes(to_csv(make_rows(days=5)))
    return path


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom bike_pipeline.commands.data import data_command\n"
        "done = CliRunner().invoke(data_command, ['ingest', '--help'])\nassert done.exit_code == 0\n"
        "heavy = {'numpy', 'pandas', 'pyarrow', 'pydantic', 'yaml', 'sqlalchemy', 'fsspec', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_demo_is_split_and_ingested(call, tmp_path):
    first = json.loads(call("split-demo", "--json").output)["first"]
    assert Path(first) == tmp_path / "workspace" / "uploads" / "bike-2011.csv"
    said = call("ingest", first).output
    assert "Span 1, version 1: created" in said
    assert "8,645" in said
    assert "already there" in call("ingest", first).output
    assert "2011-12-31" in call("list").output
    assert "span 1, version 1: 2 files as they were written" in call("verify").output


def test_json_is_for_machines(call, upload):
    record = json.loads(call("ingest", upload, "--json").output)
    assert (record["span"], record["version"], record["created"], record["rows"]) == (1, 1, True, 120)
    assert record["manifest"]["source"]["location"] == str(upload)
    assert [found["uri"] for found in json.loads(call("list", "--json").output)] == [record["uri"]]
    assert json.loads(call("verify", "--json").output) == [{"span": 1, "version": 1, "uri": record["uri"]}]


def test_settings_reach_the_ingest(call, upload, tmp_path):
    (tmp_path / "mine.yaml").write_text("data: {eval_fraction: 0.4}\n")
    record = json.loads(call("ingest", upload, "--json", "--config", tmp_path / "mine.yaml").output)
    assert record["eval_rows"] == 48
    assert isinstance(call("ingest", upload, "--set", "data.eval=1", succeeds=False).exception, ConfigurationError)


def test_a_database_is_ingested_by_its_query(call, tmp_path):
    import sqlite3

    rows = make_rows(days=3)
    with sqlite3.connect(tmp_path / "rides.db") as connection:
        connection.execute(f"CREATE TABLE rides ({', '.join(f'{name} NUMERIC' for name in rows[0])})")
        connection.executemany(
            f"INSERT INTO rides VALUES ({', '.join('?' * 17)})", [list(row.values()) for row in rows]
        )
    connection.close()
    query = "SELECT * FROM rides ORDER BY dteday, hr"
    record = json.loads(call("ingest", f"sqlite:///{tmp_path / 'rides.db'}", "--query", query, "--json").output)
    assert record["rows"] == 72
    assert record["manifest"]["source"]["query"] == query


def test_rejected_rows_are_told(call, tmp_path):
    rows = make_rows(days=10)
    rows[3] = rows[3] | {"hum": "7"}
    (tmp_path / "upload.csv").write_bytes(to_csv(rows))
    said = call("ingest", tmp_path / "upload.csv").output
    assert "rejected rows in" in said
    assert "quarantine.csv" in said


def test_an_empty_store_is_no_error_to_list_and_one_to_verify(call, tmp_path):
    assert "holds no span yet" in call("list").output
    assert json.loads(call("list", "--json").output) == []
    assert isinstance(call("verify", succeeds=False).exception, DataError)
    assert not (tmp_path / "workspace").exists()


def test_verify_names_the_changed_file(call, upload, tmp_path):
    call("ingest", upload)
    changed = Path(SpanStore(str(tmp_path / "workspace" / "spans")).latest().files("eval")[0])
    changed.write_bytes(changed.read_bytes() + b"\n")
    failed = call("verify", "--span", "1", "--version", "1", succeeds=False)
    assert isinstance(failed.exception, DataError)
    assert str(changed) in str(failed.exception)


def test_verify_and_list_miss_a_manifest_that_was_taken_away(call, upload, tmp_path):
    call("ingest", upload)
    folder = Path(SpanStore(str(tmp_path / "workspace" / "spans")).latest().uri)
    (folder / "manifest.json").unlink()
    for said in ("verify", "list", "ingest"):
        failed = call(said, *([upload] if said == "ingest" else []), succeeds=False)
        assert isinstance(failed.exception, DataError)
        assert f"{folder}: version 1 of span 1 has no manifest.json" in str(failed.exception)


def test_a_version_is_withdrawn_told_and_restored(call, upload, tmp_path):
    call("ingest", upload)
    dvc = tmp_path / "workspace" / "dvc" / "span-0001" / "version-0001.dvc"
    call("dvc")
    assert dvc.is_file()
    assert call("withdraw", 1, 1, succeeds=False).exit_code == 2
    said = call("withdraw", 1, 1, "--because", "the gate refused it").output
    assert said == "span 1 version 1 is withdrawn: the gate refused it\n"
    assert not dvc.exists()
    assert "span 1 version 1 is withdrawn since" in call("list").output
    (listed,) = json.loads(call("list", "--json").output)
    assert listed["withdrawn"]["reason"] == "the gate refused it"
    assert "span 1, version 1" in call("verify").output
    assert "span 1, version 2: created" in call("ingest", upload).output.lower()
    assert call("restore", 1, 1, "--json").output
    assert [found["withdrawn"] for found in json.loads(call("list", "--json").output)] == [None, None]


def test_a_version_without_a_span_is_a_wrong_command_line(call):
    assert call("verify", "--version", "1", succeeds=False).exit_code == 2


def test_fetch_writes_into_the_workspace_or_where_it_is_told(call, tmp_path, monkeypatch):
    from tests.data.test_original import PATH, archive

    with serving({PATH: (200, {}, archive())}) as address:
        monkeypatch.setattr("bike_pipeline.data.embedded_dataset.ORIGINAL_URL", address + PATH)
        assert "SHA-256 checked" in call("fetch", "--output", tmp_path / "here.csv").output
        call("fetch")
    assert (tmp_path / "here.csv").read_bytes() == (tmp_path / "workspace" / "data" / "hour.csv").read_bytes()
