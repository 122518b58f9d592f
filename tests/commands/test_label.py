"""`bike-pipeline label suggest`: what it reads, leaves out, writes and refuses."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from bike_pipeline import Workspace, features
from bike_pipeline.commands.data import label_command
from bike_pipeline.errors import ConfigurationError, DataError, MissingExtraError
from tests.data.making import make_rows, to_csv

UNLABELLED = [name for name in features.COLUMNS if name not in features.LABELS]
FEW_TREES = {"training.tree_rounds": 5}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = tmp_path_factory.mktemp("label")
    found = Workspace(folder / "workspace", values=FEW_TREES)
    upload = folder / "upload.csv"
    upload.write_bytes(to_csv(make_rows(days=30)))
    found.ingest(upload)
    return found


@pytest.fixture
def hours(tmp_path: Path) -> Path:
    """Ten days without labels, the first two of which have labels in the store: those of the train split."""
    path = tmp_path / "hours.csv"
    path.write_bytes(to_csv(make_rows("2011-01-23", days=10), UNLABELLED))
    return path


def test_hours_without_labels_are_suggested_and_written_as_they_were_given(
    workspace: Workspace, hours: Path, tmp_path: Path
) -> None:
    options = ("--set", f"workspace={workspace.settings.workspace}", "--set", "training.tree_rounds=5")
    output = tmp_path / "out" / "to-label.csv"
    done = CliRunner().invoke(label_command, ["suggest", str(hours), "--count", "6", "--output", str(output), *options])
    if done.exception:
        raise done.exception
    assert "6 of 192 hours, by a committee that learnt from 576" in done.output
    assert "left out, known already or there twice: 48" in done.output
    given = {(row["dteday"], row["hr"]): row for row in csv.DictReader(io.StringIO(hours.read_text()))}
    written = list(csv.DictReader(io.StringIO(output.read_text())))
    assert len(written) == 6
    for row in written:
        assert row["dteday"] >= "2011-01-25"
        assert f"{row['dteday']} {int(row['hr']):02}:00" in done.output
        assert {name: row[name] for name in UNLABELLED} == given[row["dteday"], row["hr"]]
        assert float(row["lowest_cnt"]) <= float(row["predicted_cnt"]) <= float(row["highest_cnt"])
    document = CliRunner().invoke(label_command, ["suggest", str(hours), "--count", "6", "--json", *options])
    found = json.loads(document.output)
    assert [(hour["record"]["dteday"], hour["record"]["hr"]) for hour in found["hours"]] == [
        (row["dteday"], row["hr"]) for row in written
    ]
    assert (found["candidates"], found["labelled"], found["known"]) == (192, 576, 48)


def test_parquet_says_the_same_as_csv_and_an_hour_counts_once(workspace: Workspace, hours: Path) -> None:
    rows = make_rows("2011-01-23", days=10)
    table = pa.table({name: [row[name] for row in [*rows, rows[-1]]] for name in UNLABELLED})
    parquet = hours.with_suffix(".parquet")
    pq.write_table(table, parquet)
    own, other = workspace.suggest_labels(hours, 5), workspace.suggest_labels(parquet, 5)
    assert [hour.time for hour in own.hours] == [hour.time for hour in other.hours]
    assert (own.known, other.known) == (48, 49)
    assert workspace.suggest_labels(hours, 5, seed=1).hours != own.hours


def test_of_hours_that_are_all_known_none_is_suggested(workspace: Workspace, tmp_path: Path) -> None:
    known = tmp_path / "known.csv"
    known.write_bytes(to_csv(make_rows(days=3), UNLABELLED))
    found = workspace.suggest_labels(known)
    assert (found.hours, found.candidates, found.known) == ([], 0, 72)
    assert found.to_csv().decode().splitlines() == ["score,predicted_cnt,lowest_cnt,highest_cnt"]


def test_without_a_source_the_newest_span_is_chosen_from(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace", values=FEW_TREES)
    for start in ("2011-01-01", "2011-03-01"):
        upload = tmp_path / f"{start}.csv"
        upload.write_bytes(to_csv(make_rows(start, days=10)))
        if start == "2011-03-01":
            with pytest.raises(DataError, match=r"nothing to learn from.*Name a file"):
                workspace.suggest_labels()
        workspace.ingest(upload)
    found = workspace.suggest_labels(count=3)
    assert (len(found.hours), found.candidates, found.labelled) == (3, 192, 192)
    assert all(hour.time.month == 3 for hour in found.hours)
    assert not set(features.LABELS) & set(found.hours[0].record)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows[4].update(hum="2"), "record 5: hum: 2 is above 1"),
        (lambda rows: rows[3].update(dteday=""), "record 4: dteday: missing"),
        (lambda rows: rows[2].update(temp="warm"), "record 3: temp: 'warm' is not a number"),
    ],
)
def test_a_wrong_record_is_one_error_that_names_it(workspace: Workspace, tmp_path: Path, change, said: str) -> None:
    rows = make_rows("2011-02-01", days=1)
    change(rows)
    path = tmp_path / "hours.csv"
    path.write_bytes(to_csv(rows, UNLABELLED))
    with pytest.raises(DataError, match=said):
        workspace.suggest_labels(path)


def test_what_cannot_be_read_or_is_not_asked_for_is_refused(workspace: Workspace, hours: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        workspace.suggest_labels(tmp_path / "nowhere.csv")
    damaged = tmp_path / "hours.parquet"
    damaged.write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="not a whole Parquet file"):
        workspace.suggest_labels(damaged)
    with pytest.raises(ConfigurationError, match="no hour is asked for"):
        workspace.suggest_labels(hours, 0)


def test_without_the_extra_it_says_how_to_get_it(workspace: Workspace, hours: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "skactiveml", None)
    with pytest.raises(MissingExtraError, match=r"needs the extra 'labeling'.*make setup EXTRAS=labeling"):
        workspace.suggest_labels(hours)
