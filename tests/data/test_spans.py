from __future__ import annotations

import itertools
import json
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bike_pipeline import features
from bike_pipeline.data.contract import contract_sha256
from bike_pipeline.data.rows import csv_bytes
from bike_pipeline.data.spans import SpanStore
from bike_pipeline.errors import DataError
from tests.data.making import add, check, make_rows, tree


def test_a_version_holds_what_its_manifest_says(store, tmp_path):
    added = add(store)
    found = store.get(1, 1)
    assert added.created
    assert added.version == found == store.latest()
    root = tmp_path / "spans" / "span-0001" / "version-0001"
    assert set(tree(root)) == {"train/data.csv", "eval/data.csv", "manifest.json"}
    assert found.uri == str(root)
    assert found.files("train") == [str(root / "train" / "data.csv")]
    assert found.files("eval") == [str(root / "eval" / "data.csv")]
    train, evaluation = (Path(found.files(split)[0]).read_text().splitlines() for split in ("train", "eval"))
    assert train[0] == evaluation[0] == ",".join(features.COLUMNS)
    manifest = json.loads((root / "manifest.json").read_text())
    assert manifest["rows"] == {
        "total": 120, "train": 96, "eval": 24, "read": 120, "rejected": 0, "from_parent": 0,
    }  # fmt: skip
    assert (len(train), len(evaluation)) == (97, 25)
    assert manifest["time_range"]["eval"] == {"first": "2011-01-05T00:00:00", "last": "2011-01-05T23:00:00"}
    assert manifest["parent"] is None
    assert manifest["feature_contract_sha256"] == contract_sha256()
    assert manifest["created_at"].endswith("Z")
    assert set(manifest["files"]) == {"train/data.csv", "eval/data.csv"}
    assert csv_bytes(store.read(1, 1)) == csv_bytes(check(make_rows(days=5)).accepted)


def test_the_layout_is_the_one_of_tfx(store, tmp_path):
    add(store)
    for split in ("train", "eval"):
        assert len(list((tmp_path / "spans").glob(f"span-0001/version-0001/{split}/*"))) == 1


def test_the_same_rows_never_make_two_versions(store, tmp_path):
    add(store)
    before = tree(tmp_path)
    again = add(store)
    numbered = add(store, rows=[row | {"instant": str(n + 500)} for n, row in enumerate(make_rows(days=5))])
    named = add(store, span=7)
    assert not (again.created)
    assert not (numbered.created)
    assert not (named.created)
    assert again.version.version == numbered.version.version == named.version.span == 1
    assert "holds these rows already" in again.notes[0]
    assert tree(tmp_path) == before


def test_the_same_rows_under_another_split_are_told(store):
    add(store, days=10)
    again = add(store, days=10, fraction=0.5)
    assert not again.created
    assert "eval_fraction 0.2, not 0.5" in again.notes[1]


def test_later_rows_make_a_new_span(store):
    add(store)
    assert add(store, "2011-02-01").version.span == 2
    assert (store.spans(), store.latest().span) == ([1, 2], 2)


def test_a_correction_is_merged_into_a_new_version(store):
    add(store)
    corrected = add(store, "2011-01-02", 1, seed=5)
    assert (corrected.version.span, corrected.version.version, corrected.created) == (1, 2, True)
    manifest = corrected.version.manifest
    assert (manifest.parent.span, manifest.parent.version) == (1, 1)
    assert (manifest.rows.total, manifest.rows.read, manifest.rows.from_parent) == (120, 24, 96)
    expected = [*make_rows(days=1), *make_rows("2011-01-02", 1, seed=5), *make_rows(days=5)[48:]]
    assert csv_bytes(store.read(1, 2)) == csv_bytes(check(expected).accepted)
    assert csv_bytes(store.read(1, 1)) == csv_bytes(check(make_rows(days=5)).accepted)


def test_the_same_correction_twice_makes_one_version(store):
    add(store)
    add(store, "2011-01-02", 1, seed=5)
    again = add(store, "2011-01-02", 1, seed=5)
    assert (again.created, again.version.version, store.versions(1)) == (False, 2, [1, 2])


def test_taking_a_correction_back_tells_that_the_newer_version_stays(store):
    add(store)
    add(store, "2011-01-02", 1, seed=5)
    back = add(store)
    assert (back.created, back.version.version) == (False, 1)
    assert "newer version 2 with other rows" in back.notes[1]


def test_a_correction_can_lengthen_the_last_span(store):
    add(store)
    longer = add(store, "2011-01-05", 4, seed=5)
    assert (longer.version.span, longer.version.version) == (1, 2)
    assert longer.version.manifest.rows.total == 8 * 24
    assert longer.version.manifest.rows.eval == 2 * 24


def test_a_named_span_takes_exactly_the_rows_of_the_upload(store):
    add(store)
    replaced = add(store, "2011-01-02", 2, seed=5, span=1)
    assert (replaced.version.version, replaced.version.manifest.rows.total) == (2, 48)
    assert replaced.version.manifest.rows.from_parent == 0
    assert replaced.version.manifest.parent.version == 1
    assert add(store, "2011-03-01", span=40).version.span == 40
    assert add(store, "2011-04-01").version.span == 41


def test_numbers_are_compared_as_numbers(store):
    for n in range(11):
        add(store, f"2011-{n + 1:02d}-01" if n < 9 else f"2012-{n - 8:02d}-01", 2)
    assert (store.spans(), store.latest().span) == (list(range(1, 12)), 11)
    for seed in range(1, 11):
        add(store, "2012-02-01", 2, seed=seed)
    assert (store.versions(11), store.latest().version) == (list(range(1, 12)), 11)
    assert store.latest(3).span == 3


def test_less_than_two_days_are_refused_and_nothing_is_left(store, tmp_path):
    with pytest.raises(DataError, match="at least 2 days"):
        add(store, days=1)
    assert tree(tmp_path) == {}
    assert store.spans() == []


def test_rejected_rows_are_in_the_quarantine_beside_the_splits(store):
    rows = make_rows(days=5)
    rows[3] = rows[3] | {"hum": "7"}
    added = add(store, rows=rows)
    quarantine = Path(added.version.quarantine).read_text().splitlines()
    assert len(quarantine) == 2
    assert '"upload.csv",5,"hum: 7 is above 1"' in quarantine[1]
    assert added.version.manifest.rejected_by_reason == {"range": 1}
    again = add(store, rows=rows)
    assert not again.created
    kept = re.search(r"kept in (\S+)", " ".join(again.notes))[1]
    assert Path(kept).read_text().splitlines() == quarantine
    store.verify(1, 1)


def test_what_is_not_there_is_a_clear_error(store):
    for action in (store.latest, lambda: store.latest(3), lambda: store.get(1, 1), lambda: store.verify(1, 1)):
        with pytest.raises(DataError, match=r"store is empty|there is no"):
            action()
    assert store.all_versions() == []


def test_a_manifest_of_a_newer_release_says_so(store):
    path = Path(add(store).version.uri, "manifest.json")
    path.write_text(path.read_text().replace('"schema_version": 2', '"schema_version": 4'))
    with pytest.raises(DataError, match=r"format 4; this release reads up to 3.*Upgrade"):
        store.get(1, 1)


def test_a_manifest_from_before_the_formats_is_csv_and_stays_as_it_is(store, tmp_path):
    added = add(store)
    path = Path(added.version.uri, "manifest.json")
    old = path.read_text().replace('"schema_version": 2', '"schema_version": 1').replace('  "format": "csv",\n', "")
    path.write_text(old)
    found = store.verify(1, 1)
    assert (found.manifest.schema_version, found.manifest.format) == (1, "csv")
    assert store.read(1, 1).equals(check(make_rows(days=5)).accepted)
    assert not add(store, data_format="parquet").created
    corrected = add(store, "2011-01-02", 1, seed=9, data_format="parquet")
    assert (corrected.version.version, corrected.version.manifest.format) == (2, "parquet")
    store.export(1, 1, tmp_path / "copy")
    assert (tmp_path / "copy" / "span-0001" / "version-0001" / "manifest.json").read_text() == old


def test_the_same_rows_have_one_address_in_both_formats(store, tmp_path):
    columns = SpanStore(str(tmp_path / "columns"))
    texts = add(store).version
    packed = add(columns, data_format="parquet").version
    assert set(packed.manifest.files) == {"train/data.parquet", "eval/data.parquet"}
    assert (texts.manifest.format, packed.manifest.format) == ("csv", "parquet")
    assert packed.manifest.content_sha256 == texts.manifest.content_sha256
    assert columns.read(1, 1).equals(store.read(1, 1))
    assert not add(columns, data_format="csv").created
    assert columns.verify(1, 1) == packed


def test_a_correction_may_be_of_another_format_than_what_it_corrects(store, tmp_path):
    add(store, data_format="parquet")
    corrected = add(store, "2011-01-02", 1, seed=9, data_format="csv").version
    alone = SpanStore(str(tmp_path / "alone"))
    add(alone)
    expected = add(alone, "2011-01-02", 1, seed=9).version
    assert (corrected.version, corrected.manifest.format) == (2, "csv")
    assert corrected.manifest.content_sha256 == expected.manifest.content_sha256
    assert [found.manifest.format for found in store.all_versions()] == ["parquet", "csv"]
    assert [store.verify(1, version).version for version in (1, 2)] == [1, 2]


def test_folders_that_are_no_versions_are_left_alone(store, tmp_path):
    add(store)
    for name in ("span-1", "span-0002", "span-00003/version-0001", "span-0001/version-2/train", "old", "span-0000"):
        (tmp_path / "spans" / name).mkdir(parents=True)
    (tmp_path / "spans" / "span-0009").write_text("a file")
    assert (store.spans(), store.versions(1), store.latest().version) == ([1], [1], 1)


STEPS = st.tuples(
    st.integers(0, 14),  # first day
    st.integers(1, 6),  # days
    st.integers(0, 1),  # seed
    st.none() | st.integers(1, 6),  # named span
    st.sampled_from([0.2, 0.5]),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEPS, min_size=1, max_size=8))
def test_any_sequence_of_ingests_keeps_the_promises_of_the_store(steps):
    with tempfile.TemporaryDirectory() as folder:
        store = SpanStore(folder)
        seen = {}
        for day, days, seed, span, fraction in steps:
            try:
                added = add(store, f"2011-01-{day + 1:02d}", days, seed=seed, span=span, fraction=fraction)
            except DataError:
                assert {(v.span, v.version): v for v in store.all_versions()} == seen
                continue
            key = (added.version.span, added.version.version)
            assert added.created == (key not in seen)
            seen[key] = added.version
            versions = store.all_versions()
            assert {(v.span, v.version): v for v in versions} == seen
            contents = [v.manifest.content_sha256 for v in versions]
            assert len(set(contents)) == len(contents)
            newest = max(seen)
            assert (store.latest().span, store.latest().version) == newest
            latest = [store.latest(number).manifest for number in store.spans()]
            assert all(a.last < b.first for a, b in itertools.pairwise(latest))
        for numbers in seen:
            store.verify(*numbers)
