from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bike_pipeline import features
from bike_pipeline.errors import ModelError
from bike_pipeline.serving import records

NAMES = [feature.name for feature in features.MODEL_INPUTS]
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
    assert f"record 2: missing: {name} (" in str(error.value)


def test_all_missing_values_are_named_at_once():
    with pytest.raises(ModelError) as error:
        columns({"dteday": "2012-06-01"})
    named = [name for name in NAMES if f"{name} (" in error.value.what]
    assert named == ["hr", "holiday", "workingday", "weathersit", "temp", "atemp", "hum", "windspeed"]


@pytest.mark.parametrize(
    "value", ["warm", True, False, math.nan, math.inf, "nan", "-inf", 10**400, [0.5], {"value": 1}]
)
@pytest.mark.parametrize("name", ["hr", "temp"])
def test_what_is_not_a_number_is_refused(name, value):
    with pytest.raises(ModelError, match=f"{name} is not a number"):
        columns({**RECORD, name: value})


@pytest.mark.parametrize("feature", features.MODEL_INPUTS, ids=NAMES)
def test_each_bound_of_the_contract_is_kept(feature):
    step = 1 if feature.kind == "int" else 0.001
    assert columns({**RECORD, feature.name: feature.minimum})[feature.name] == [feature.minimum]
    outside = [feature.minimum - step]
    if feature.maximum is not None:
        assert columns({**RECORD, feature.name: feature.maximum})[feature.name] == [feature.maximum]
        outside.append(feature.maximum + step)
    for value in outside:
        with pytest.raises(ModelError, match=f"{feature.name} is .*, outside its range"):
            columns({**RECORD, feature.name: value})


def test_a_code_is_a_whole_number():
    assert columns({**RECORD, "hr": "8.0"})["hr"] == [8]
    with pytest.raises(ModelError, match="a whole number"):
        columns({**RECORD, "hr": 8.5})


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
        derived = {name: value for name, value in record.items() if name not in ("yr", "mnth", "weekday", "workingday")}
        assert columns({"dteday": embedded_rows["dteday"][row].decode(), **derived}) == columns(record)


def test_what_is_sent_wins_over_the_date():
    assert dated("2012-06-01", holiday=0, workingday=0)["workingday"] == [0]


@pytest.mark.parametrize("day", ["01.06.2012", "2012-13-01", "tomorrow", 5])
def test_a_date_that_is_none_is_refused(day):
    with pytest.raises(ModelError, match="dteday is not a date"):
        dated(day, holiday=0)


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
    for feature in features.MODEL_INPUTS:
        (value,) = columns({**RECORD, **sent})[feature.name]
        assert feature.minimum <= value <= (math.inf if feature.maximum is None else feature.maximum)


def test_a_header_with_the_same_name_twice_is_refused():
    with pytest.raises(ModelError, match="names hr twice"):
        records.parse("hr,temp,hr\n1,0.5,2\n", "input")


def test_the_date_fills_what_is_empty():
    full = records.complete({"dteday": "2012-06-01", "yr": "", "mnth": None, "weekday": 3, "holiday": "0"})
    assert (full["yr"], full["mnth"], full["weekday"], full["workingday"]) == (1, 6, 3, 1)
