"""A version that was withdrawn counts nowhere, stays readable, and is told from one whose mark was changed."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import fsspec
import pytest

from bike_pipeline.data.spans import SpanStore
from bike_pipeline.data.window import choose
from bike_pipeline.data.withdrawal import WITHDRAWN
from bike_pipeline.errors import BusyError, DataError, StorageError
from bike_pipeline.lineage.queries.audit import _carried_over
from bike_pipeline.lineage.queries.reproducibility import span_match
from bike_pipeline.monitoring.reference import Reference
from bike_pipeline.run_cache.rerun import inputs_of
from bike_pipeline.settings import load_settings
from bike_pipeline.storage.files import LocalFiles
from tests.data.making import add, tree
from tests.rollout.storages import s3

WHY = "the data gate refused it: LABEL_STEP"


@pytest.fixture(params=["folder", "memory", "s3"])
def place(request, tmp_path):
    """The address of an empty store."""
    if request.param == "folder":
        yield str(tmp_path / "spans")
    elif request.param == "memory":
        yield "memory://withdrawal/spans"
        fsspec.filesystem("memory").rm("/withdrawal", recursive=True)
    else:
        with pytest.MonkeyPatch.context() as patch, s3(patch) as address:
            # moto keeps its buckets from one server to the next.
            yield f"{address}/{uuid.uuid4().hex}"


def test_a_withdrawn_version_counts_nowhere_and_stays_readable(place):
    store = SpanStore(place)
    add(store)
    good = add(store, "2011-02-01").version
    bad = add(store, "2011-02-02", 1, seed=3).version
    record = store.withdraw(2, 2, f"  {WHY}\n")
    assert (record.reason, record.manifest_sha256) == (WHY, bad.manifest_sha256)
    store = SpanStore(place)
    assert store.withdrawal(2, 2) == record
    assert store.withdrawal(2, 1) is None
    assert (store.spans(), store.versions(2), store.latest(), store.latest(2)) == ([1, 2], [1], good, good)
    assert choose(store, 2, None)[0][-1] == good
    assert [(v.span, v.version) for v in store.all_versions()] == [(1, 1), (2, 1)]
    assert [(v.span, v.version) for v in store.all_versions(withdrawn=True)] == [(1, 1), (2, 1), (2, 2)]
    assert store.versions(2, withdrawn=True) == [1, 2]
    assert store.get(2, 2) == store.verify(2, 2) == bad
    assert store.read(2, 2).num_rows == 120
    store.check_files(2, 2)
    store.check_whole()


def test_the_same_rows_are_a_new_version_with_a_new_number_and_another_parent(place):
    store = SpanStore(place)
    add(store)
    add(store, "2011-01-02", 1, seed=3)
    store.withdraw(1, 2, WHY)
    again = add(store, "2011-01-02", 1, seed=3)
    assert (again.created, again.version.version, again.version.manifest.parent.version) == (True, 3, 1)
    assert again.version.manifest.content_sha256 == store.get(1, 2).manifest.content_sha256


def test_a_store_may_be_left_without_a_span_and_its_number_goes_on(place):
    store = SpanStore(place)
    add(store, "2011-01-10")
    store.withdraw(1, 1, WHY)
    assert (store.spans(), store.all_versions()) == ([], [])
    with pytest.raises(DataError, match="store is empty"):
        store.latest()
    # It is in the way of none: earlier rows would else have no place.
    added = add(store, "2011-01-01", 4).version
    assert (added.span, added.version, added.manifest.parent) == (1, 2, None)


def test_what_would_count_again_must_not_overlap_another_span(store):
    add(store, days=20)
    add(store, days=5, span=1, seed=1)
    add(store, "2011-01-10")
    with pytest.raises(DataError, match=r"then version 1 of span 1 counts: .*earlier than span 2.*Withdraw"):
        store.withdraw(1, 2, WHY)
    assert store.latest(1).version == 2
    store.withdraw(2, 1, WHY)
    store.withdraw(1, 2, WHY)
    assert store.latest().version == 1
    with pytest.raises(DataError, match=r"then version 1 of span 2 counts: .*than span 1"):
        store.restore(2, 1)
    assert store.spans() == [1]


def test_it_can_be_restored(place):
    store = SpanStore(place)
    add(store)
    with pytest.raises(DataError, match="not withdrawn"):
        store.restore(1, 1)
    store.withdraw(1, 1, WHY)
    assert store.withdraw(1, 1, "another reason").reason == WHY
    assert store.restore(1, 1) == store.latest()
    assert store.withdrawal(1, 1) is None


def test_what_is_not_there_or_has_no_reason_is_refused(store, tmp_path):
    add(store)
    before = tree(tmp_path)
    with pytest.raises(DataError, match="there is no version 2 of span 1"):
        store.withdraw(1, 2, WHY)
    with pytest.raises(DataError, match="without a reason"):
        store.withdraw(1, 1, " \n")
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record | {"reason": "another"},
        lambda record: record | {"version": 2},
        lambda record: record | {"schema_version": 2},
        lambda record: {name: record[name] for name in record if name != "sha256"},
        lambda _: {},
        lambda _: [1],
    ],
)
def test_a_changed_mark_is_an_error_and_neither_counts_nor_hides(store, change):
    add(store)
    store.withdraw(1, 1, WHY)
    path = Path(store.get(1, 1).uri, WITHDRAWN)
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    for asked in (store.latest, store.spans, lambda: add(store), lambda: store.restore(1, 1)):
        with pytest.raises(DataError, match=r"mark of a withdrawn version is damaged"):
            asked()
    assert store.get(1, 1).version == 1


def test_a_mark_of_another_manifest_is_an_error(store, tmp_path):
    add(store)
    store.withdraw(1, 1, WHY)
    other = SpanStore(str(tmp_path / "other"))
    mine = Path(add(other, days=6).version.uri, WITHDRAWN)
    mine.write_bytes(Path(store.get(1, 1).uri, WITHDRAWN).read_bytes())
    with pytest.raises(DataError, match="written for another version"):
        other.latest()


def test_a_refused_write_leaves_the_version_as_it_was(store, monkeypatch):
    add(store)

    def full(self, path, content):
        raise StorageError("cannot write it: no space left on device", where=path)

    with monkeypatch.context() as patch:
        patch.setattr(LocalFiles, "replace", full)
        with pytest.raises(StorageError):
            store.withdraw(1, 1, WHY)
    assert store.latest().version == 1


def test_another_writer_is_waited_for(store, tmp_path):
    add(store)
    with LocalFiles(tmp_path / "spans").lock(), pytest.raises(BusyError):
        SpanStore(str(tmp_path / "spans"), lock_timeout=0.2).withdraw(1, 1, WHY)
    assert store.latest().version == 1


def test_a_rerun_sees_it_and_monitoring_and_lineage_obey(tmp_path):
    store = SpanStore(str(tmp_path / "spans"))
    settings = load_settings(None, (f"workspace={tmp_path}",))
    add(store)
    before = inputs_of(settings)
    add(store, "2011-01-02", 1, seed=3)
    assert inputs_of(settings) != before
    labels = Reference.of_spans(store).columns["label"]
    record = {"span": 1, "version": 2, "content_sha256": store.latest().manifest.content_sha256, "manifest_sha256": ""}
    store.withdraw(1, 2, WHY)
    assert inputs_of(settings) == before
    assert (Reference.of_spans(store).columns["label"] != labels).any()
    assert span_match(record, store.uri).same
    assert _carried_over(1, 1, store.uri) == ({1: 0, 2: 96}, [])


def test_an_exported_version_is_not_withdrawn_there(store, tmp_path):
    add(store)
    store.withdraw(1, 1, WHY)
    store.export(1, 1, tmp_path / "copy")
    assert SpanStore(str(tmp_path / "copy")).latest().version == 1
