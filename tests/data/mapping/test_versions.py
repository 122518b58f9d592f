"""What a mapping leaves in the version that it leads to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from bike_pipeline.commands.data import data_command
from bike_pipeline.data.ingest import ingest
from bike_pipeline.data.mapping import MAPPINGS, load_profile
from bike_pipeline.data.spans import SpanStore
from bike_pipeline.errors import DataError
from tests.data import mapped
from tests.data.making import make_rows, to_csv


def test_the_version_records_the_mapping_and_the_setting_names_it(tmp_path):
    (tmp_path / "train.csv").write_bytes(mapped.text(mapped.kaggle()))
    place = ("--set", f"workspace={tmp_path / 'workspace'}")
    given = CliRunner().invoke(
        data_command, ["ingest", str(tmp_path / "train.csv"), "--map", "kaggle", "--json", *place]
    )
    assert given.exception is None
    manifest = json.loads(given.output)["manifest"]
    sha256 = load_profile("kaggle")[1]
    assert manifest["schema_version"] == 3
    assert manifest["source"]["mapping"] == {"name": "kaggle", "sha256": sha256, "weather": []}
    store = SpanStore(str(tmp_path / "workspace" / "spans"))
    assert store.verify(1, 1).manifest.source.mapping.sha256 == sha256
    (tmp_path / "own.yaml").write_bytes((MAPPINGS / "kaggle.yaml").read_bytes() + b"# mine\n")
    rows = [row | {"casual": 4, "count": row["count"] + 1} for row in mapped.kaggle()]
    (tmp_path / "train.csv").write_bytes(mapped.text(rows))
    again = ["ingest", str(tmp_path / "train.csv"), *place, "--set", f"data.mapping={tmp_path / 'own.yaml'}"]
    said = CliRunner().invoke(data_command, again).output
    assert "note: temp and atemp are read as the competition scaled them" in said
    changed = store.verify(1, 2).manifest.source.mapping
    assert changed.name == "own.yaml"
    assert changed.sha256 != sha256


def test_a_version_without_a_mapping_is_written_as_before(settings, tmp_path):
    (tmp_path / "upload.csv").write_bytes(to_csv(make_rows(days=5)))
    manifest = json.loads(Path(ingest(settings, str(tmp_path / "upload.csv")).version.uri, "manifest.json").read_text())
    assert manifest["schema_version"] == 2
    assert "mapping" not in manifest["source"]


def test_too_many_wrong_rows_refuse_the_upload_and_keep_the_reasons(settings, tmp_path):
    rows = mapped.kaggle()
    rows[5]["weather"] = "9"
    (tmp_path / "train.csv").write_bytes(mapped.text(rows))
    with pytest.raises(
        DataError, match=r"1 of 72 rows .*weather: 9 is not one of .*quarantine\.csv; nothing was ingested\.$"
    ):
        ingest(settings, str(tmp_path / "train.csv"), mapping="kaggle")


def test_a_database_and_a_parquet_file_are_not_mapped(settings, tmp_path):
    for query, message in ((None, "query"), ("SELECT 1", "a mapping reads files, not databases")):
        with pytest.raises(DataError, match=message):
            ingest(settings, "sqlite:///rides.db", query=query, mapping="kaggle")
    (tmp_path / "train.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="it is a Parquet file, and a mapping reads CSV"):
        ingest(settings, str(tmp_path / "train.parquet"), mapping="kaggle")
