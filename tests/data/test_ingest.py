from __future__ import annotations

import re
from pathlib import Path

import pytest

from bike_pipeline import features
from bike_pipeline.data.embedded_dataset import split_demo
from bike_pipeline.data.ingest import ingest
from bike_pipeline.data.spans import SpanStore
from bike_pipeline.errors import DataError
from bike_pipeline.settings import load_settings
from tests.data.making import make_rows, to_csv


@pytest.fixture
def settings(tmp_path):
    return load_settings(None, (f"workspace={tmp_path / 'workspace'}",))


def upload(tmp_path, rows, name="upload.csv", **options):
    (tmp_path / name).write_bytes(to_csv(rows, **options))
    return str(tmp_path / name)


def with_broken(count, days=10):
    return [row | {"hum": "7"} if n < count else row for n, row in enumerate(make_rows(days=days))]


def test_both_halves_of_the_demo_become_two_spans(settings, tmp_path):
    first, second = (ingest(settings, str(path)) for path in split_demo(tmp_path))
    assert (first.version.span, first.version.version, first.created, first.rejected) == (1, 1, True, 0)
    assert first.version.manifest.rows.total == 8645
    assert (second.version.span, second.version.manifest.rows.total) == (2, 8734)
    # 20 % of 365 and of 366 days are 73 days.
    assert (f"{first.version.manifest.time_range['eval'].first:%Y-%m-%d %H}", first.version.manifest.rows.eval) == (
        "2011-10-20 00",
        1748,
    )
    store = SpanStore(settings.store_uri)
    assert [(v.span, v.version) for v in store.all_versions()] == [(1, 1), (2, 1)]
    assert first.version.manifest.source.files[0].size == Path(split_demo(tmp_path)[0]).stat().st_size
    assert not ingest(settings, str(split_demo(tmp_path)[0])).created


def test_up_to_the_limit_rejected_rows_go_to_quarantine(settings, tmp_path):
    result = ingest(settings, upload(tmp_path, with_broken(2)))
    assert (result.rejected, result.version.manifest.rows.total, result.created) == (2, 238, True)
    assert len(Path(result.version.quarantine).read_text().splitlines()) == 3
    assert Path(result.version.quarantine).parent == Path(result.version.uri)


def test_above_the_limit_the_whole_upload_is_refused_and_its_quarantine_kept(settings, tmp_path):
    source = upload(tmp_path, with_broken(3))
    with pytest.raises(
        DataError, match=r"3 of 240 rows \(1\.2%\).*allows 1\.0%.*range 3.*line 2: hum: 7 is above 1"
    ) as first:
        ingest(settings, source)
    assert SpanStore(settings.store_uri).spans() == []
    kept = Path(re.search(r"in (\S+quarantine\.csv)", str(first.value))[1])
    assert kept.parent.parent == Path(settings.store_uri) / "refused"
    assert len(kept.read_text().splitlines()) == 4
    with pytest.raises(DataError) as second:
        ingest(settings, source)
    assert str(second.value) == str(first.value)
    assert len(list(kept.parent.parent.iterdir())) == 1


def test_an_upload_without_one_sound_row_is_refused_whatever_the_limit(settings, tmp_path):
    open_settings = load_settings(None, (f"workspace={settings.workspace}", "data.max_rejected_fraction=1.0"))
    with pytest.raises(DataError, match="240 of 240 rows"):
        ingest(open_settings, upload(tmp_path, with_broken(240)))


def test_a_shuffled_upload_is_refused(settings, tmp_path):
    with pytest.raises(DataError, match="order"):
        ingest(settings, upload(tmp_path, make_rows(days=10)[::-1]))


def test_unknown_columns_are_told(settings, tmp_path):
    rows = [row | {"station": "5th"} for row in make_rows(days=4)]
    result = ingest(settings, upload(tmp_path, rows, columns=[*features.COLUMNS, "station"]))
    assert result.notes == ("columns not in the feature contract were ignored: station",)
    assert result.version.manifest.source.ignored_columns == ("station",)
    assert "station" not in Path(SpanStore(settings.store_uri).latest().files("train")[0]).read_text()


def test_an_ignored_column_without_a_name_is_told_in_words(settings, tmp_path):
    # pandas writes its index so.
    rows = [row | {"": str(n)} for n, row in enumerate(make_rows(days=4))]
    result = ingest(settings, upload(tmp_path, rows, columns=["", *features.COLUMNS]))
    assert result.notes == ("columns not in the feature contract were ignored: one without a name",)


def test_what_a_folder_holds_besides_is_told(settings, tmp_path):
    folder = tmp_path / "uploads"
    folder.mkdir()
    (folder / "a.csv").write_bytes(to_csv(make_rows(days=4)))
    for number in range(7):
        (folder / f"notes-{number}.txt").write_text("x", encoding="utf-8")
    (note,) = ingest(settings, str(folder)).notes
    assert note.startswith("not read, being no CSV or Parquet file: notes-0.txt, ")
    assert note.endswith(" and 2 more")


def test_a_password_in_the_address_is_written_nowhere(settings, tmp_path):
    from tests.data.making import serving

    with serving({"/rides.csv": (200, {}, to_csv(make_rows(days=4)))}) as address:
        result = ingest(settings, f"http://anna:s3cret@{address.removeprefix('http://')}/rides.csv?token=s3cret")
    written = b"".join(path.read_bytes() for path in Path(settings.store_uri).rglob("*") if path.is_file())
    assert b"s3cret" not in written
    assert "s3cret" not in repr(result)


def test_the_span_can_be_named(settings, tmp_path):
    assert ingest(settings, upload(tmp_path, make_rows(days=4)), span=5).version.span == 5
    with pytest.raises(DataError, match="outside of 1 to 9999"):
        ingest(settings, upload(tmp_path, make_rows("2011-03-01", days=4)), span=0)
