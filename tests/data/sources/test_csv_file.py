from __future__ import annotations

import gzip

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bike_pipeline import features
from bike_pipeline.data.contract import check_rows
from bike_pipeline.data.sources.content import read_content
from bike_pipeline.data.sources.csv_file import read_csv
from bike_pipeline.errors import DataError
from tests.data.making import make_rows, to_csv

GOOD = to_csv(make_rows())
HEADER = GOOD.split(b"\n", 1)[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"\n \n", "it is empty"),
        (HEADER, "a header and no rows"),
        (HEADER + b"\r\n\r\n", "a header and no rows"),
        (GOOD.replace(b",", b";"), "separated by semicolons"),
        (GOOD.replace(b",", b"\t"), "separated by tabs"),
        (GOOD.split(b"\n", 1)[1], "names none of the columns"),
        (GOOD.replace(b",hum,", b",humidity,").replace(b",cnt", b",count"), "columns hum, cnt missing"),
        (GOOD.replace(b",hum,", b",temp,"), "column hum missing"),
        (GOOD.replace(b"cnt\n", b"cnt,hum\n"), "column hum is there twice"),
        (GOOD.decode().encode("utf-16"), r"not UTF-8|binary"),
        (GOOD + b"caf\xe9,1\n", r"not UTF-8 \(byte \d+, line 74\)"),
        (bytes(range(256)) * 40, "binary data"),
        (GOOD.replace(b"2011", b"\x002011", 1), "binary data .*line 2"),
        (b"\x7fELF" + b"\0" * 100, "binary data"),
        (b"PK\x03\x04" + bytes(50), "a zip archive"),
        (b"PAR1" + bytes(50), "not a whole Parquet file"),
        (gzip.compress(GOOD)[:-40], "gzip file is damaged or cut short"),
        (gzip.compress(GOOD + bytes(50_000_000)), "more than 200 times its size"),
        (gzip.compress(GOOD)[:50] + b"garbage" + gzip.compress(GOOD)[57:], "gzip file is damaged or cut short"),
        (gzip.compress(b"", mtime=0), "it is empty"),
        (GOOD.replace(b"2011-01-01", b'"2011-01-01', 1), "never closed"),
        (GOOD.replace(b"2011-01-01", b'"2011-01-01', 2), "enclose a line end"),
        (b"\0" * 1000, "binary data"),
        (b"<html><body>Please log in</body></html>", "names none of the columns"),
    ],
)
def test_each_kind_of_broken_upload_is_one_clear_error(content, message):
    with pytest.raises(DataError, match=message) as caught:
        read_content(content, "upload.csv")
    assert str(caught.value).startswith("upload.csv")
    assert "\n" not in str(caught.value)
    assert caught.value.fix


def test_a_quotation_mark_that_is_never_closed_is_shown_by_its_line():
    lines = GOOD.split(b"\n")
    lines[4] = lines[4].replace(b",", b',"', 1)
    with pytest.raises(DataError, match=r"upload\.csv:5: a quotation mark is opened and never closed"):
        read_csv(b"\n".join(lines), "upload.csv")


def test_two_stray_quotation_marks_do_not_swallow_the_rows_between_them():
    lines = GOOD.split(b"\n")
    for at in (5, 20):
        lines[at] = lines[at].replace(b",", b',"', 1)
    with pytest.raises(DataError, match=r"upload\.csv:6: quotation marks enclose a line end"):
        read_csv(b"\n".join(lines), "upload.csv")


def test_columns_that_the_contract_does_not_know_are_ignored_and_named():
    rows = [row | {"station": '"5th, Main"', "note": ""} for row in make_rows()]
    read = read_csv(to_csv(rows, ["note", *features.COLUMNS, "station"]), "upload.csv")
    assert read.ignored == ("note", "station")
    assert read.table.column_names == list(features.COLUMNS)
    assert check_rows(read).rejected.num_rows == 0


@settings(max_examples=80, deadline=None)
@given(st.lists(st.text('0123456789-.,ax"; \n', max_size=30).filter(lambda t: t.count('"') % 2 == 0), max_size=12))
def test_no_line_disappears_without_a_word(extra):
    """Every line that is not blank is a row, a broken line, or the whole upload is refused."""
    lines = [line for text in extra for line in text.split("\n")]
    content = GOOD + "\n".join(lines).encode()
    try:
        read = read_csv(content, "upload.csv")
    except DataError:
        # Only quotation marks make the cut of a whole file doubtful.
        if '"' not in content.decode():
            raise
        return
    places = sorted([*read.lines.tolist(), *(line.line for line in read.broken)])
    written = [n for n, line in enumerate(content.decode().split("\n"), start=1) if n > 1 and line.strip()]
    assert places == written


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=400))
def test_garbage_never_ends_in_another_error_than_ours(content):
    with pytest.raises(DataError):
        read_content(content, "upload.csv")


@settings(max_examples=80, deadline=None)
@given(st.binary(min_size=1, max_size=8), st.integers(0, len(GOOD) - 1))
@example(b",", 0)
def test_a_damaged_upload_is_refused_or_loses_only_its_damaged_rows(damage, at):
    content = GOOD[:at] + damage + GOOD[at:]
    try:
        checked = check_rows(read_csv(content, "upload.csv"))
    except DataError:
        return
    assert checked.accepted.num_rows >= 72 - 2 * (damage.count(b"\n") + damage.count(b"\r") + 1)


def test_a_header_in_another_case_is_told():
    with pytest.raises(DataError, match="its first line writes 'Hr' for hr, 'CNT' for cnt") as error:
        read_csv(to_csv(make_rows(days=2)).replace(b"hr", b"Hr", 1).replace(b"cnt", b"CNT", 1), "a.csv")
    assert error.value.fix == "write the names of the columns in lower case"
