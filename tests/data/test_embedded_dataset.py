from __future__ import annotations

import hashlib

import pytest

from bike_pipeline.data.contract import check_rows
from bike_pipeline.data.embedded_dataset import EMBEDDED_FILE, embedded_bytes, split_demo
from bike_pipeline.data.rows import csv_bytes
from bike_pipeline.data.sources.csv_file import read_csv
from bike_pipeline.errors import DataError, StorageError


def test_the_embedded_file_is_the_published_one():
    published = "b03a2d02e8c10f435c43c7f0b358b7e34a003afea53dbc37f0183f2763295133"
    assert hashlib.sha256(EMBEDDED_FILE.read_bytes()).hexdigest() == published
    assert embedded_bytes().count(b"\n") == 17_379 + 1


def test_the_licence_asks_for_an_attribution_and_there_is_one():
    text = EMBEDDED_FILE.with_name("ATTRIBUTION.md").read_text(encoding="utf-8")
    for needed in ("Fanaee-T", "10.24432/C5W894", "CC BY 4.0", "UCI Machine Learning Repository", "Changes"):
        assert needed in text


def test_a_changed_file_is_refused(tmp_path):
    changed = tmp_path / "hour.csv"
    changed.write_bytes(EMBEDDED_FILE.read_bytes().replace(b"0.24", b"0.25", 1))
    with pytest.raises(DataError, match="not the published hourly data set"):
        embedded_bytes(changed)


def test_a_missing_file_is_one_clear_error(tmp_path):
    with pytest.raises(StorageError, match="cannot read"):
        embedded_bytes(tmp_path / "hour.csv")


def test_the_whole_embedded_data_set_fits_the_contract():
    checked = check_rows(read_csv(embedded_bytes(), "hour.csv"))
    assert (checked.total, checked.accepted.num_rows, checked.rejected.num_rows) == (17_379, 17_379, 0)
    assert checked.reasons == {}


def test_no_value_of_the_embedded_data_set_changes_on_its_way_through_the_contract():
    rewritten = csv_bytes(check_rows(read_csv(embedded_bytes(), "hour.csv")).accepted).decode().splitlines()
    original = embedded_bytes().decode().splitlines()
    assert rewritten[0] == original[0]
    for before, after in zip(original[1:], rewritten[1:], strict=True):
        cells = list(zip(before.split(","), after.split(","), strict=True))
        assert all(a == b or (b == f"{a}.0" and a in ("0", "1")) for a, b in cells)


def test_the_demo_cuts_the_data_set_into_its_two_years(tmp_path):
    first, second = split_demo(tmp_path / "uploads")
    header = embedded_bytes().split(b"\n", 1)[0] + b"\n"
    bodies = [path.read_bytes().removeprefix(header) for path in (first, second)]
    assert header + bodies[0] + bodies[1] == embedded_bytes()
    assert [body.count(b"\n") for body in bodies] == [8645, 8734]
    assert bodies[1].startswith(b"8646,2012-01-01,")


def test_the_demo_replaces_older_files_and_leaves_nothing_else(tmp_path):
    split_demo(tmp_path)
    first, second = split_demo(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([first, second])


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"a part of that path is a file|not a directory"):
        split_demo(tmp_path / "file" / "uploads")
