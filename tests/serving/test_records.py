from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bike_pipeline import features
from bike_pipeline.errors import ModelError
from bike_pipeline.serving import records

NAMES = [feature.name for feature in features.REQUIRED_INPUTS]
RECORD = {
    "yr": 1, "mnth": 6, "hr": 8, "holiday": 0, "weekday": 5, "workingday": 1, "weathersit": 1,
    "temp": 0.6, "atemp": 0.58, "hum": 0.5, "windspeed": 0.2,
}  # fmt: skip


def columns(*sent):
    return records.to_columns(sent, "request")


def csv_of(*sent):
    names = list(sent[0])
    return "\n".join([",".join(names), *(",".join(str(record[n]) for n in names) for record in sent)]) + "\n"


def test_every_form_of_the_same_records_is_read_alike():
    sent = [RECORD, {**RECORD, "hr": 17, "temp": 0.25}]
    wanted = columns(*sent)
    texts = [
        json.dumps(sent),
        json.dumps(sent, indent=2),
        "\n".join(map(json.dumps, sent)),
        "\n\n".join(map(json.dumps, sent)) + "\n",
        csv_of(*sent),
        csv_of(*sent).replace("\n", "\r\n"),
        "\ufeff" + csv_of(*sent),
        "\ufeff" + json.dumps(sent),
        "\ufeff\n  " + json.dumps(sent),
    ]
    for text in texts:
        assert records.to_columns(records.parse(text, "request"), "request") == wanted
    assert list(wanted) == NAMES
    assert wanted["hr"] == [8, 17]
    assert wanted["temp"] == [0.6, 0.25]
    assert [type(value) for value in (wanted["hr"][0], wanted["temp"][0])] == [int, float]


def test_one_json_object_is_one_record():
    assert records.parse(json.dumps(RECORD), "request") == [RECORD]


@pytest.mark.parametrize("text", ["", "  \n ", "\ufeff", "\ufeff \n", "[]", " [ ] "])
def test_nothing_is_no_record(text):
    with pytest.raises(ModelError, match="no records"):
        records.parse(text, "request")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"hr": 8', "line 1: not JSON"),
        ('{"hr": 8}\n{"hr": }', "line 2: not JSON"),
        ("[1, 2]", "record 1: a record is a JSON object"),
        ('[{"hr": 8}, null]', "record 2: a record is a JSON object"),
        ('{"hr": 8}\n7', "record 2: a record is a JSON object"),
        ("[" + "9" * 5000 + "]", "line 1: not a record"),
        ("[" * 100_000, "line 1: not"),
        ('hr,temp\n8,"' + "5" * 200_000, "not a CSV"),
        ("hr,temp\n", "a header and no record"),
        ("hr,temp\n8,0.5\n9\n", "line 3: the row has another number of fields"),
        ("hr,temp\n8,0.5,1\n", "line 2: the row has another number of fields"),
    ],
)
def test_a_text_that_is_no_list_of_records_is_refused_with_its_place(text, said):
    with pytest.raises(ModelError) as error:
        records.parse(text, "request")
    assert said in str(error.value)
    assert str(error.value).startswith("request")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("absent", ["absent", None, ""])
def test_a_missing_value_is_named_with_its_record(name, absent):
    broken = {key: value for key, value in RECORD.items() if key != name}
    if absent != "absent":
        broken[name] = absent
    with pytest.raises(ModelError) as error:
        columns(RECORD, broken)
    assert f"record 2: {name}: missing" in str(error.value)
    assert f"{name} is a" in error.value.fix


def test_all_missing_values_are_named_at_once():
    with pytest.raises(ModelError) as error:
        columns({"dteday": "2012-06-01"})
    named = [name for name in NAMES if f"{name}: missing" in error.value.what]
    assert named == ["hr", "holiday", "workingday", "weathersit", "temp", "atemp", "hum", "windspeed"]


@pytest.mark.parametrize(
    "value",
    [
        "warm",
        True,
        False,
        math.nan,
        math.inf,
        "nan",
        "-inf",
        10**400,
        [0.5],
        {"value": 1},
        "1_0",
        "٨",
        "0x8",
        "8,0",
    ],
)
@pytest.mark.parametrize("name", ["hr", "temp"])
def test_what_is_not_a_number_is_refused(name, value):
    with pytest.raises(ModelError, match=f"{name}: .*(is not a|is not finite|is too large for)"):
        columns({**RECORD, name: value})


def test_a_number_of_thousands_of_digits_is_refused():
    with pytest.raises(ModelError, match="hr: 'a number of thousands of digits' is not an integer"):
        columns({**RECORD, "hr": 10**5000})


def agreeing(record):
    """Return a record whose working day is what weekday and holiday say."""
    return {**record, "workingday": int(1 <= int(record["weekday"]) <= 5 and not record["holiday"])}


@pytest.mark.parametrize("feature", features.MODEL_INPUTS, ids=[feature.name for feature in features.MODEL_INPUTS])
def test_each_bound_of_the_contract_is_kept(feature):
    step = 1 if feature.kind == "int" else 0.001
    # With an optional input all of them are there.
    known = {**RECORD, "temp_mean_24h": 0.5, "hum_mean_3h": 0.5}
    base = known if feature.name != "workingday" else {**known, "weekday": 0}

    def sent(value):
        record = {**base, feature.name: value}
        return columns(record if feature.name == "workingday" else agreeing(record))[feature.name]

    assert sent(feature.minimum) == [feature.minimum]
    outside = [feature.minimum - step if feature.default is None else -step]
    if feature.maximum is not None:
        base = known
        assert sent(feature.maximum) == [feature.maximum]
        outside.append(feature.maximum + step)
    for value in outside:
        with pytest.raises(ModelError, match=f"{feature.name}: {value} is (below|above)"):
            sent(value)


def test_a_code_is_a_whole_number():
    assert columns({**RECORD, "hr": "8.0"})["hr"] == [8]
    with pytest.raises(ModelError, match=r"hr: '8\.5' is not an integer") as error:
        columns({**RECORD, "hr": 8.5})
    assert error.value.fix == "hr is a whole number from 0 to 23: hour of the day, local time, at its beginning"


def test_what_the_model_does_not_read_is_ignored():
    sent = {**RECORD, "casual": "unknown", "registered": -5, "cnt": None, "instant": "x", "season": 77, "note": [1]}
    assert columns(sent) == columns(RECORD)


def dated(day, **more):
    weather = {name: RECORD[name] for name in ("weathersit", "temp", "atemp", "hum", "windspeed", "hr")}
    return columns({"dteday": day, **weather, **more})


@pytest.mark.parametrize(
    ("day", "holiday", "wanted"),
    [
        ("2012-06-01", 0, (1, 6, 5, 1)),
        ("2012-06-02", 0, (1, 6, 6, 0)),
        ("2011-01-02", "0", (0, 1, 0, 0)),
        ("2011-01-03", 0.0, (0, 1, 1, 1)),
        ("2011-01-03", "0.0", (0, 1, 1, 1)),
        ("2012-07-04", 1, (1, 7, 3, 0)),
        ("2012-07-04", "1", (1, 7, 3, 0)),
    ],
)
def test_a_date_stands_for_the_calendar(day, holiday, wanted):
    got = dated(day, holiday=holiday)
    assert tuple(got[name][0] for name in ("yr", "mnth", "weekday", "workingday")) == wanted


def test_the_date_says_the_same_as_the_embedded_data(embedded_rows):
    for row in range(0, len(embedded_rows["hr"]), 97):
        record = {name: embedded_rows[name][row].item() for name in NAMES}
        day = embedded_rows["day"][row].item()
        derived = {name: value for name, value in record.items() if name not in ("yr", "mnth", "weekday", "workingday")}
        date = embedded_rows["dteday"][row].decode()
        assert columns({"dteday": date, **derived}) == columns({**record, "day": day})


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"weekday": 6}, "weekday: 6 but the date says 5"),
        ({"mnth": 1}, "mnth: 1 but the date says 6"),
        ({"yr": 0}, "yr: 0 but the date says 1"),
        ({"yr": 2012}, "yr: 2012 but the date says 1"),
        ({"workingday": 0}, "workingday: 0 but weekday and holiday say 1"),
        ({"holiday": 1, "workingday": 1}, "workingday: 1 but weekday and holiday say 0"),
    ],
)
def test_what_contradicts_the_date_is_refused_as_at_an_ingest(more, said):
    with pytest.raises(ModelError) as error:
        dated("2012-06-01", **{"holiday": 0, **more})
    assert error.value.what == said
    agreed = dated("2012-06-01", holiday=0, yr=1, mnth="6", weekday=5.0, workingday=1)
    assert agreed == dated("2012-06-01", holiday=0)


def test_a_year_of_the_calendar_is_not_taken_for_years_since_2011():
    with pytest.raises(ModelError, match=r"yr: 2012 is above 99 \(it counts from 2011\)"):
        columns({**RECORD, "yr": 2012})


def test_a_working_day_agrees_with_weekday_and_holiday_without_a_date_too():
    with pytest.raises(ModelError, match="workingday: 1 but weekday and holiday say 0"):
        columns({**RECORD, "weekday": 0})


@pytest.mark.parametrize("day", ["2012-06-01 00:00:00", "2012-06-01T00:00", " 2012-06-01 ", "2012-06-01 00:00:00.000"])
def test_a_date_is_read_as_exports_write_it(day):
    assert dated(day, holiday=0) == dated("2012-06-01", holiday=0)


@pytest.mark.parametrize(
    "day", ["01.06.2012", "2012-13-01", "tomorrow", 5, "20120601", "2012-W22-5", "2012-06-01 08:00"]
)
def test_a_date_that_is_none_is_refused(day):
    with pytest.raises(ModelError) as error:
        dated(day, holiday=0)
    assert error.value.what == f"dteday: '{day}' is not a date (YYYY-MM-DD)"


def test_an_empty_date_is_no_date():
    assert columns({**RECORD, "dteday": ""}) == columns(RECORD)


def refused(read):
    """Return the ModelError that reading ends with, or None where it does not end so; nothing else may happen."""
    try:
        read()
    except ModelError as error:
        return error
    return None


@given(st.text(max_size=60))
def test_no_text_is_taken_for_a_whole_record(text):
    error = refused(lambda: records.to_columns(records.parse(text, "request"), "request"))
    assert error is not None
    assert error.what
    assert error.fix


ANY_VALUE = st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=9)


@given(st.dictionaries(st.sampled_from([*NAMES, "dteday"]), ANY_VALUE))
def test_any_json_record_is_values_inside_the_contract_or_one_clear_error(sent):
    error = refused(lambda: columns({**RECORD, **sent}))
    if error is not None:
        assert error.fix
        return
    for feature in features.REQUIRED_INPUTS:
        (value,) = columns({**RECORD, **sent})[feature.name]
        assert feature.minimum <= value <= (math.inf if feature.maximum is None else feature.maximum)


def test_a_header_with_the_same_name_twice_is_refused():
    with pytest.raises(ModelError, match="names hr twice"):
        records.parse("hr,temp,hr\n1,0.5,2\n", "input")


def test_the_date_fills_what_is_empty():
    filled = dated("2012-06-01", holiday="0", yr="", mnth=None, weekday=" ")
    assert [filled[name] for name in ("yr", "mnth", "weekday", "workingday")] == [[1], [6], [5], [1]]


def test_a_table_with_spaces_after_its_commas_is_read():
    text = csv_of(RECORD, {**RECORD, "hr": 17})
    assert records.parse(text.replace(",", ", "), "input") == records.parse(text, "input")
    quoted = 'dteday, hr, holiday\n"2012-06-01", "8", "0"\n'
    assert records.parse(quoted, "input") == [{"dteday": "2012-06-01", "hr": "8", "holiday": "0"}]


@pytest.mark.parametrize(("sign", "called"), [(";", "semicolons"), ("\t", "tabs")])
def test_a_table_of_another_separator_is_told(sign, called):
    with pytest.raises(ModelError, match=f"separated by {called}, not by commas"):
        records.parse(csv_of(RECORD).replace(",", sign), "input")


def test_a_name_in_upper_case_is_told():
    sent = {name.capitalize() if name == "hr" else name: value for name, value in RECORD.items()}
    with pytest.raises(ModelError, match=r"hr: missing \('Hr' is there, and names are in lower case\)"):
        columns(sent)


def test_a_record_that_says_a_name_twice_is_refused():
    for text in ('{"hr": 8, "hr": 9}', '[{"hr": 8,\n "hr": 9}]', '{"hr": 8}\n{"hr": 8, "hr": 9}'):
        with pytest.raises(ModelError, match="a record names hr twice"):
            records.parse(text, "input")


@pytest.mark.parametrize("text", ['{"instances": [{"hr": 8}]}', '{"signature_name": "x", "inputs": {"hr": [8]}}'])
def test_the_body_of_a_request_to_a_server_is_told_from_records(text):
    with pytest.raises(ModelError, match="this a request to a model server, and no record") as error:
        records.parse(text, "input")
    assert "give the records alone" in error.value.fix


def test_all_that_is_wrong_with_a_record_is_told_at_once():
    with pytest.raises(ModelError) as error:
        columns(RECORD, {**RECORD, "hr": 24, "temp": "warm", "holiday": ""})
    assert error.value.where == "request, record 2"
    assert error.value.what == "hr: 24 is above 23; temp: 'warm' is not a number; holiday: missing"
    assert "holiday is a whole number from 0 to 1: 1 on a public holiday" in error.value.fix


def test_optional_inputs_are_taken_as_they_come_and_what_is_not_known_is_the_default():
    sent = columns(
        {**RECORD, "temp_mean_3h": 0.4, "day": ""}, {**RECORD, "temp_mean_3h": 0, "weathersit_mean_3h": "1.5"}
    )
    assert sent["temp_mean_3h"] == [0.4, 0.0]
    assert sent["weathersit_mean_3h"] == [0.0, 1.5]
    assert sent["day"] == [0, 0]
    assert list(sent) == [feature.name for feature in features.MODEL_INPUTS]
    # Without any of them a model of an earlier release is asked as ever.
    assert list(columns(RECORD)) == NAMES


def test_the_date_says_the_day_of_the_month_and_may_not_say_another():
    assert columns({**RECORD, "dteday": "2012-06-01"})["day"] == [1]
    assert columns({**RECORD, "dteday": "2012-06-01", "day": 1})["day"] == [1]
    with pytest.raises(ModelError, match="day: 2 but the date says 1"):
        columns({**RECORD, "dteday": "2012-06-01", "day": 2})
