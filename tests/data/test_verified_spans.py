"""What was changed in a span store is found by whoever reads it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bike_pipeline.errors import DataError
from tests.data.making import add, make_rows


@pytest.mark.parametrize("name", ["train/data.csv", "eval/data.csv", "quarantine.csv", "manifest.json"])
@pytest.mark.parametrize("damage", ["first", "middle", "last", "longer", "shorter", "gone"])
def test_verify_finds_every_changed_byte(store, name, damage):
    rows = make_rows(days=5)
    rows[3] = rows[3] | {"hum": "7"}
    path = Path(add(store, rows=rows).version.uri, name)
    content = path.read_bytes()
    at = {"first": 0, "middle": len(content) // 2, "last": len(content) - 1}
    if damage == "gone":
        path.unlink()
    elif damage in at:
        path.write_bytes(content[: at[damage]] + bytes([content[at[damage]] ^ 1]) + content[at[damage] + 1 :])
    else:
        path.write_bytes(content + b"\n" if damage == "longer" else content[:-1])
    with pytest.raises(DataError):
        store.verify(1, 1)


def test_verify_finds_a_file_too_many(store):
    Path(add(store).version.uri, "train", "more.csv").write_text("1,2\n")
    with pytest.raises(DataError, match="does not belong to this version"):
        store.verify(1, 1)


def test_verify_finds_a_manifest_of_other_rows(store):
    root = Path(add(store).version.uri)
    path = root / "manifest.json"
    path.write_text(path.read_text().replace(json.loads(path.read_text())["content_sha256"], "0" * 64))
    with pytest.raises(DataError, match="does not describe these rows"):
        store.verify(1, 1)


COUNTS = ("total", "train", "eval", "read", "rejected", "from_parent")


@pytest.mark.parametrize("name", COUNTS)
def test_an_edited_row_count_is_found_by_every_reader(store, name):
    path = Path(add(store).version.uri, "manifest.json")
    manifest = json.loads(path.read_text())
    manifest["rows"][name] += 1
    path.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    for reader in (lambda: store.latest(1), lambda: store.verify(1, 1), store.all_versions):
        with pytest.raises(DataError, match="the row counts do not add up"):
            reader()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda m: m["rows"].update(train=m["rows"]["train"] - 24, eval=m["rows"]["eval"] + 24),
            "72 rows in the split",
        ),
        (lambda m: m["rows"].update(read=m["rows"]["read"] + 1, rejected=1), "1 rejected rows, while 0"),
        (
            lambda m: m["time_range"]["eval"].update(last="2011-01-06T00:00:00"),
            "first and last hours of the split eval",
        ),
        (lambda m: m["files"]["eval/data.csv"].update(size=1), "the file was changed"),
    ],
    ids=["splits", "rejected", "hours", "size"],
)
def test_verify_finds_an_edited_manifest_whose_counts_add_up(store, change, said):
    path = Path(add(store).version.uri, "manifest.json")
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    with pytest.raises(DataError, match=said):
        store.verify(1, 1)


def test_a_version_that_lost_its_manifest_is_not_passed_over(store):
    add(store)
    newer = add(store, "2011-01-02", 1, seed=9).version
    assert newer.version == 2
    Path(newer.uri, "manifest.json").unlink()
    for reader in (store.latest, store.all_versions, store.check_whole, lambda: add(store, seed=3)):
        with pytest.raises(DataError, match=r"version 2 of span 1 has no manifest\.json: it was taken away"):
            reader()


def test_a_version_moved_to_another_number_is_refused(store, tmp_path):
    root = Path(add(store).version.uri)
    shutil.copytree(root, root.with_name("version-0002"))
    with pytest.raises(DataError, match="the manifest was changed"):
        store.get(1, 2)


def test_verify_finds_a_changed_parquet_file(store):
    path = Path(add(store, data_format="parquet").version.files("eval")[0])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="the file was changed"):
        store.verify(1, 1)
