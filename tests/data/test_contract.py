from __future__ import annotations

import datetime as dt
import io
import itertools

import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from bike_pipeline import features
from bike_pipeline.data.contract import check_rows, quarantine_csv
from bike_pipeline.data.rows import csv_bytes
from bike_pipeline.data.sources.csv_file import read_csv
from bike_pipeline.data.sources.source_rows import join_rows
from bike_pipeline.errors import DataError
from tests.data.making import check, make_row, make_rows, reasons_by_line, to_csv

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def broken(row_index, **values):
    rows = make_rows(days=2)
    rows[row_index] = rows[row_index] | values
    return check(rows)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"temp": ""}, "temp: missing"),
        ({"temp": "  "}, "temp: missing"),
        ({"temp": "mild"}, "temp: 'mild' is not a number"),
        ({"temp": "0,5"}, None),
        ({"temp": "1_0"}, "temp: '1_0' is not a number"),
        ({"temp": "NaN"}, "temp: 'NaN' is not finite"),
        ({"temp": "-inf"}, "temp: '-inf' is not finite"),
        ({"temp": "1e999"}, "temp: '1e999' is not finite"),
        ({"temp": "1.01"}, "temp: 1.01 is above 1"),
        ({"hum": "-0.01"}, "hum: -0.01 is below 0"),
        ({"season": "0"}, "season: 0 is below 1"),
        ({"season": "5"}, "season: 5 is above 4"),
        ({"season": "2.5"}, "season: '2.5' is not an integer"),
        ({"season": "0x2"}, "season: '0x2' is not an integer"),
        ({"season": "٢"}, "season: '٢' is not an integer"),
        ({"weathersit": "clear"}, "weathersit: 'clear' is not an integer"),
        ({"instant": "0"}, "instant: 0 is below 1"),
        ({"hr": "24"}, "hr: 24 is above 23"),
        ({"dteday": "2011-02-29"}, "dteday: '2011-02-29' is not a date (YYYY-MM-DD)"),
        ({"dteday": "01/02/2011"}, "dteday: '01/02/2011' is not a date (YYYY-MM-DD)"),
        ({"dteday": "2011-01-01 05:00"}, "dteday: '2011-01-01 05:00' is not a date (YYYY-MM-DD)"),
        ({"yr": "1"}, "yr: 1 but the date says 0"),
        ({"mnth": "2"}, "mnth: 2 but the date says 1"),
        ({"weekday": "3"}, "weekday: 3 but the date says 6"),
        ({"workingday": "1"}, "workingday: 1 but weekday and holiday say 0"),
        ({"casual": "1", "registered": "2", "cnt": "4"}, "cnt: 4 but casual + registered is 3"),
        ({"casual": "-1", "registered": "2", "cnt": "1"}, "casual: -1 is below 0"),
    ],
    ids=str,
)
def test_each_rule_rejects_its_row_and_only_that(values, reason):
    checked = broken(5, **values)
    assert list(reasons_by_line(checked)) == [7]
    expected = "fields: 18 where the header has 17" if reason is None else reason
    assert expected in reasons_by_line(checked)[7]
    assert checked.accepted.num_rows == 47
    assert checked.total == 48


def test_every_reason_of_a_row_is_given():
    checked = broken(5, temp="2", hum="", season="x", weekday="2", cnt="100000")
    kinds = [reason.split(":")[0] for reason in reasons_by_line(checked)[7]]
    assert kinds == ["season", "temp", "hum", "weekday", "workingday", "cnt"]
    assert checked.reasons == {"agreement": 1, "missing": 1, "range": 1, "type": 1}


@pytest.mark.parametrize(
    "values",
    [
        {"season": "3.0"},
        {"season": " 3"},
        {"hum": "1"},
        {"hum": "0"},
        {"hum": ".5"},
        {"hum": "5e-1"},
        {"hum": "+0.5"},
        {"dteday": "2011-01-01 00:00:00.000000"},
        {"dteday": "2011-01-01T00:00:00"},
        {"dteday": '"2011-01-01"'},
    ],
    ids=str,
)
def test_another_way_to_write_a_right_value_passes(values):
    assert broken(5, **values).accepted.num_rows == 48


def test_values_keep_their_meaning_whatever_way_they_are_read():
    # One unusual value sends a column down the slow road; all its other values must stay the same.
    usual, unusual = check(make_rows()), check([make_rows()[0] | {"temp": " 0.50 ", "season": "2.0"}, *make_rows()[1:]])
    assert usual.accepted.slice(1).equals(unusual.accepted.slice(1))
    assert unusual.accepted["temp"][0].as_py() == 0.5
    assert unusual.accepted["season"][0].as_py() == 2


def test_of_two_rows_of_one_hour_the_first_stays():
    rows = make_rows()
    again = make_row(dt.datetime(2011, 1, 1, 3), seed=9)
    checked = check([*rows[:4], again, *rows[4:]])
    assert reasons_by_line(checked) == {6: ["duplicate: line 5 has the same date and hour"]}
    assert csv_bytes(checked.accepted) == csv_bytes(check(rows).accepted)


def test_a_broken_row_does_not_displace_the_sound_row_of_its_hour():
    rows = make_rows()
    checked = check([*rows[:3], rows[3] | {"hum": "7"}, *rows[3:]])
    assert reasons_by_line(checked) == {5: ["hum: 7 is above 1"]}
    assert checked.accepted.num_rows == len(rows)


def test_a_broken_row_that_repeats_an_hour_is_told_both():
    rows = make_rows()
    checked = check([*rows[:4], rows[3] | {"hum": "7"}, *rows[4:]])
    assert reasons_by_line(checked)[6] == ["hum: 7 is above 1", "duplicate: line 5 has the same date and hour"]


def test_one_row_in_the_wrong_place_costs_one_row():
    rows = make_rows()
    late = check([*rows[:10], make_row(dt.datetime(2030, 1, 1)), *rows[10:]])
    assert reasons_by_line(late) == {12: ["order: line 13 after it is earlier"]}
    early = check([*rows[:10], make_row(dt.datetime(2010, 12, 31, 5)) | {"yr": "0"}, *rows[10:]])
    assert reasons_by_line(early)[12][-1] == "order: line 11 before it is later"
    assert late.accepted.num_rows == early.accepted.num_rows == len(rows)


def test_absent_hours_are_legal():
    rows = make_rows()
    assert check(rows[::5]).rejected.num_rows == 0


def test_a_line_with_another_number_of_fields_is_kept_as_it_stands():
    rows = make_rows()
    text = to_csv(rows).decode().splitlines()
    text[3] += ",77"
    text[9] = "half,a,row"
    checked = check_rows(read_csv("\n".join(text).encode(), "upload.csv"))
    assert reasons_by_line(checked) == {
        4: ["fields: 18 where the header has 17"],
        10: ["fields: 3 where the header has 17"],
    }
    assert checked.rejected["text"].to_pylist() == [text[3], "half,a,row"]
    assert checked.total == len(rows)
    assert checked.reasons == {"fields": 2}


def test_a_quarantine_can_be_corrected_and_ingested():
    checked = broken(5, temp='mild, "or so"'.replace(",", ""))
    corrected = quarantine_csv(checked.rejected).replace(b'mild ""or so""', b"0.5")
    assert b"0.5" in corrected
    again = check_rows(read_csv(corrected, "quarantine.csv"))
    assert (again.accepted.num_rows, again.rejected.num_rows) == (1, 0)


@pytest.mark.parametrize("separators", [1, 3])
def test_a_row_of_separators_is_rejected_and_a_blank_line_is_not_a_row(separators):
    rows = make_rows()
    lines = to_csv(rows).decode().splitlines()
    content = "\n".join([*lines[:5], *[""] * 2, *lines[5:], *["," * 16] * separators, "", ""])
    checked = check_rows(read_csv(content.encode(), "upload.csv"))
    first = len(lines) + 3
    assert list(reasons_by_line(checked)) == [first + n for n in range(separators)]
    assert checked.total == len(rows) + separators


def test_rows_of_typed_sources_are_checked_as_well():
    table = check(make_rows()).accepted
    rows = read_csv(to_csv(make_rows()), "x.csv")
    typed = type(rows)(table, rows.lines, rows.files, rows.names)
    assert check_rows(typed).accepted.equals(table)
    changes = {
        "season": pa.array([None, 2.5, *([1.0] * (table.num_rows - 2))]),
        "holiday": pa.array([False] * table.num_rows),
        "dteday": table["dteday"].cast(pa.timestamp("ms")),
        "temp": pa.array([0.5, None, float("nan"), float("inf"), *([0.25] * (table.num_rows - 4))]),
    }
    for name, values in changes.items():
        table = table.set_column(table.schema.get_field_index(name), name, values)
    said = reasons_by_line(check_rows(type(rows)(table, rows.lines, rows.files, rows.names)))
    assert said[2][0] == "season: missing"
    assert said[3][:2] == ["season: '2.5' is not an integer", "temp: missing"]
    assert said[4][0] == "temp: 'nan' is not finite"
    assert said[5][0] == "temp: 'inf' is not finite"


def test_a_type_that_can_hold_no_value_is_one_clear_error():
    rows = read_csv(to_csv(make_rows()), "x.csv")
    table = rows.table.set_column(0, "instant", pa.array([[1]] * rows.table.num_rows))
    with pytest.raises(DataError, match="column instant has the type list"):
        check_rows(type(rows)(table, rows.lines, rows.files, rows.names))


HOURS = st.sets(st.integers(0, 24 * 60), min_size=1, max_size=80)
START = dt.datetime(2011, 12, 1)


def rows_of(hours, seed):
    return [make_row(START + dt.timedelta(hours=h), seed=seed, instant=n + 1) for n, h in enumerate(sorted(hours))]


@QUICK
@given(HOURS, st.integers(0, 10**6))
def test_clean_rows_are_never_rejected(hours, seed):
    checked = check(rows_of(hours, seed))
    assert checked.rejected.num_rows == 0
    assert checked.accepted.num_rows == len(hours)


NUMBERS = [feature for feature in features.FEATURES if feature.kind != "date"]


@st.composite
def corruption(draw):
    feature = draw(st.sampled_from(features.FEATURES))
    garbage = st.text("abcxyz/;#%-. ", max_size=12)
    if feature.kind == "date":
        return {feature.name: draw(garbage | st.just("2011-02-30") | st.just("20110101"))}
    values = [garbage, st.sampled_from(["nan", "inf", "-inf", "1e400", "", "0x1", "--1"])]
    if feature.minimum is not None:
        values.append(st.floats(-1e9, feature.minimum - 0.001).map(lambda v: f"{v:.6f}"))
    if feature.maximum is not None:
        values.append(st.floats(feature.maximum + 0.001, 1e9).map(lambda v: f"{v:.6f}"))
    return {feature.name: draw(st.one_of(values))}


@QUICK
@given(HOURS, st.integers(0, 10**6), st.data())
def test_a_corrupted_row_is_always_caught_and_names_its_column(hours, seed, data):
    rows = rows_of(hours, seed)
    where = data.draw(st.sets(st.integers(0, len(rows) - 1), min_size=1, max_size=4))
    names = {}
    for index in where:
        change = data.draw(corruption())
        rows[index] = rows[index] | change
        names[index + 2] = next(iter(change))
    checked = check(rows)
    said = reasons_by_line(checked)
    assert set(said) == set(names)
    for line, name in names.items():
        assert any(reason.startswith(f"{name}:") for reason in said[line])
    assert checked.accepted.num_rows + checked.rejected.num_rows == checked.total == len(rows)


@QUICK
@given(HOURS, st.sampled_from(["yr", "mnth", "weekday", "workingday", "cnt", "casual"]), st.data())
def test_a_valid_value_that_disagrees_with_the_others_is_caught(hours, name, data):
    rows = rows_of(hours, 1)
    index = data.draw(st.integers(0, len(rows) - 1))
    feature = features.BY_NAME[name]
    value = data.draw(st.integers(int(feature.minimum or 0), int(feature.maximum or 2000)))
    assume(str(value) != rows[index][name])
    rows[index] = rows[index] | {name: str(value)}
    assert list(reasons_by_line(check(rows))) == [index + 2]


@QUICK
@given(st.lists(st.integers(0, 40), min_size=1, max_size=60), st.integers(0, 10**6))
def test_whatever_the_order_every_row_is_either_accepted_or_has_a_reason(hours, seed):
    rows = [make_row(START + dt.timedelta(hours=h), seed=seed + n, instant=n + 1) for n, h in enumerate(hours)]
    checked = check(rows)
    said = reasons_by_line(checked)
    assert all(reasons and all(reasons) for reasons in said.values())
    kept = [hour for n, hour in enumerate(hours) if n + 2 not in said]
    assert kept == sorted(set(kept))
    assert checked.accepted.num_rows == len(kept) >= 1
    # No rejected row could have stayed: each breaks the order of the kept rows or repeats one of them.
    for line in said:
        before = [h for n, h in enumerate(hours[: line - 2]) if n + 2 not in said]
        after = [h for n, h in enumerate(hours) if n + 2 > line and n + 2 not in said]
        hour = hours[line - 2]
        assert hour in kept or (before and hour < before[-1]) or (after and hour > after[0])


@QUICK
@given(HOURS, st.lists(st.integers(1, 79), max_size=4), st.data())
def test_how_an_upload_is_cut_into_files_does_not_matter(hours, cuts, data):
    rows = rows_of(hours, 3)
    index = data.draw(st.integers(0, len(rows) - 1))
    rows[index] = rows[index] | {"hum": "7"}
    edges = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    parts = [read_csv(to_csv(rows[a:b]), f"part-{n}.csv") for n, (a, b) in enumerate(itertools.pairwise(edges))]
    whole, cut = check(rows), check_rows(join_rows(parts, "folder"))
    assert whole.accepted.equals(cut.accepted)
    assert whole.rejected.select(["reasons", *features.COLUMNS]) == cut.rejected.select(["reasons", *features.COLUMNS])
    file = max(n for n, edge in enumerate(edges[:-1]) if edge <= index)
    assert cut.rejected["file"].to_pylist() == [f"part-{file}.csv"]
    assert cut.rejected["line"].to_pylist() == [index - edges[file] + 2]


@QUICK
@given(st.permutations(features.COLUMNS), st.sampled_from(["\n", "\r\n", "\r"]), st.booleans(), st.booleans())
def test_how_an_upload_is_written_does_not_matter(columns, line_end, quotes, mark):
    rows = make_rows()
    text = to_csv(rows, columns).decode().replace("\n", line_end)
    if quotes:
        text = line_end.join(",".join(f'"{c}"' for c in line.split(",")) for line in text.split(line_end) if line)
    content = (b"\xef\xbb\xbf" if mark else b"") + text.encode()
    assert check_rows(read_csv(content, "upload.csv")).accepted.equals(check(rows).accepted)


def test_the_stored_form_gives_the_same_rows_again():
    accepted = check(make_rows(days=20)).accepted
    assert check_rows(read_csv(csv_bytes(accepted), "data.csv")).accepted.equals(accepted)
    floats = [feature.name for feature in features.FEATURES if feature.kind == "float"]
    read = pa.csv.read_csv(io.BytesIO(csv_bytes(accepted.slice(0, 1))))
    assert {read.schema.field(name).type for name in floats} == {pa.float64()}


@pytest.mark.parametrize("value", ["0", "1", "0.00001", "0.30000000000000004", "1e-7"])
def test_a_stored_float_never_looks_like_an_integer(value):
    rows = [row | {"windspeed": value} for row in make_rows()]
    read = pa.csv.read_csv(io.BytesIO(csv_bytes(check(rows).accepted)))
    assert read.schema.field("windspeed").type == pa.float64()
    assert read["windspeed"][0].as_py() == float(value)
