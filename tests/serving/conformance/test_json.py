"""JSON to tensors and back: rows, columns, bytes, numbers."""

from __future__ import annotations

import base64
import json
import re

import numpy as np
import pytest

from tests.serving.conformance.conftest import instances

# A server that serves two models is started, and a model made for it.
pytestmark = pytest.mark.slow

KINDS = {
    "text": ["ä", {"b64": base64.b64encode(b"\xff\x00").decode()}],
    "flag": [True, False],
    "whole": [-(2**31), 2**31 - 1],
    "wide": [-(2**63), 2**63 - 1],
    "real": [0.1, 1e300],
    "pair": [[1, 2.5], [-0.25, 0]],
}


def numbers(body):
    """Return the numbers of a JSON text as they stand there."""
    return re.findall(rb"[-\w.+]+", body[body.index(b"[") :])


def test_rows_and_columns_are_answered_alike(ask, url, rows):
    by_row = ask("POST", f"{url}:predict", {"instances": instances(rows)})
    by_column = ask("POST", f"{url}:predict", {"inputs": {name: values.tolist() for name, values in rows.items()}})
    assert (by_row.status, by_column.status) == (200, 200)
    assert list(by_row.json) == ["predictions"]
    assert list(by_column.json) == ["outputs"]
    assert by_row.json["predictions"] == by_column.json["outputs"]
    assert len(by_row.json["predictions"]) == 50
    assert by_row.headers["content-type"].partition(";")[0] == "application/json"


def test_one_row(ask, url, rows):
    answer = ask("POST", f"{url}:predict", {"instances": instances(rows)[:1]})
    assert len(answer.json["predictions"]) == 1
    assert isinstance(answer.json["predictions"][0], float)


def test_one_input_needs_no_name(predict):
    assert predict("serving_default", {"instances": [1, 2]}).json == {"predictions": [2.5, 3.0]}
    assert predict("serving_default", {"inputs": [1, 2]}).json == {"outputs": [2.5, 3.0]}
    assert predict("serving_default", {"instances": [{"x": 1}]}).json == {"predictions": [2.5]}
    assert predict("serving_default", {"inputs": {"x": [1]}}).json == {"outputs": [2.5]}
    assert predict("", {"inputs": [1]}).json == {"outputs": [2.5]}


def test_a_scalar_is_a_column_only(predict):
    assert predict("scalar", {"inputs": 3}).json == {"outputs": 6.0}
    assert predict("scalar", {"inputs": {"x": 3}}).json == {"outputs": 6.0}


def test_several_outputs_are_named_and_bytes_come_back_as_base64(predict):
    answer = predict("kinds", {"inputs": {**KINDS, "text": ["a", "ä"]}})
    assert answer.status == 200, answer.body
    outputs = answer.json["outputs"]
    assert outputs["text_out"] == ["a", "ä"]
    assert outputs["text_bytes"] == [{"b64": "YQ=="}, {"b64": base64.b64encode("ä".encode()).decode()}]
    assert outputs["flag_out"] == KINDS["flag"]
    assert outputs["whole_out"] == KINDS["whole"]
    assert outputs["wide_out"] == KINDS["wide"]
    assert outputs["real_out"] == KINDS["real"]
    assert outputs["pair_out"] == KINDS["pair"]


def test_several_outputs_of_rows(predict):
    columns = {**KINDS, "text": ["a", "b"]}
    found = predict("kinds", {"instances": [{name: values[i] for name, values in columns.items()} for i in (0, 1)]})
    assert found.status == 200, found.body
    second = found.json["predictions"][1]
    assert second == {
        "text_out": "b",
        "text_bytes": {"b64": "Yg=="},
        "flag_out": False,
        "whole_out": 2**31 - 1,
        "wide_out": 2**63 - 1,
        "real_out": 1e300,
        "pair_out": [-0.25, 0.0],
    }


def test_bytes_go_in_as_base64(predict):
    outputs = predict("kinds", {"inputs": KINDS}).json["outputs"]
    assert [base64.b64decode(value["b64"]) for value in outputs["text_bytes"]] == ["ä".encode(), b"\xff\x00"]


def test_numbers_that_are_none_stand_bare(predict):
    answer = predict("same", b'{"signature_name": "same", "inputs": [NaN, Infinity, -Infinity]}')
    assert answer.status == 200, answer.body
    assert numbers(answer.body) == [b"NaN", b"Infinity", b"-Infinity"]


def test_whole_numbers_of_floats_have_a_point(predict):
    found = numbers(predict("same", {"inputs": [1, -0.0, 100000, 16777215]}).body)
    assert all(b"." in number or b"e" in number for number in found)
    assert [float(number) for number in found] == [1, 0, 100000, 16777215]
    assert numbers(predict("which", {"inputs": [1]}).body) in ([b"1"], [b"2"])


def test_floats_survive_the_way_there_and_back(predict):
    bits = np.random.default_rng(3).integers(0, 2**32, 3000, dtype=np.uint64).astype(np.uint32)
    values = bits.view(np.float32)
    values = values[np.isfinite(values)]
    sent = ",".join(map(str, values.tolist())).encode()
    answer = predict("same", b'{"signature_name": "same", "inputs": [' + sent + b"]}")
    assert answer.status == 200, answer.body[:200]
    found = np.array([np.float32(number.decode()) for number in numbers(answer.body)])
    np.testing.assert_array_equal(found.view(np.uint32), values.view(np.uint32))


def test_floats_are_as_short_as_they_can_be(predict):
    found = numbers(predict("same", {"inputs": [0.1, 0.2, 1.1, 3.4e38, 16777217.5]}).body)
    assert [float(number) for number in found] == [0.1, 0.2, 1.1, 3.4e38, 16777218.0]
    assert max(map(len, found)) <= 12


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "document is empty"),
        (b"{", "JSON Parse error"),
        (b"[1]", "object"),
        (b"{}", "Missing 'inputs' or 'instances' key"),
        ({"inputs": [1], "instances": [1]}, "only one of"),
        ({"instances": []}, "No values in 'instances' array"),
        ({"instances": {"x": 1}}, "'instances' to be an list"),
        ({"instances": [1, {"x": 1}]}, "got object at item 1"),
        ({"instances": [{"x": 1}, 1]}, "item 1"),
        ({"instances": [{"x": 1, "z": 1}]}, "element: 0"),
        ({"instances": [{"z": 1}]}, "element: 0"),
        ({"instances": [[1], [1, 2]]}, "element: 1"),
        ({"instances": ["one"]}, "not of expected type: float"),
        ({"instances": [None]}, "not of expected type: float"),
        ({"instances": [True]}, "not of expected type: float"),
        ({"inputs": {"z": [1]}}, "Missing named input: x"),
        ({"inputs": [1, [2]]}, ""),
        ({"signature_name": 3, "inputs": [1]}, "signature_name"),
        ({"signature_name": "none", "inputs": [1]}, '"none" not found in signature def'),
    ],
)
def test_bodies_that_do_not_fit(ask, second, body, said):
    answer = ask("POST", f"/v1/models/{second}:predict", body)
    assert answer.status == 400
    assert said in answer.error


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"text": [1, 2]}, "not of expected type: string"),
        ({"text": [{"b64": "*"}, "a"]}, "base64"),
        ({"text": [{"b64": "YQ==", "more": 1}, "a"]}, ""),
        ({"flag": [1, 0]}, "not of expected type: bool"),
        ({"whole": [2**31, 0]}, "not of expected type: int32"),
        ({"whole": [1.5, 0]}, "not of expected type: int32"),
        ({"wide": [2**63, 0]}, "not of expected type: int64"),
        ({"pair": [[1, 2], [3]]}, ""),
    ],
)
def test_values_of_another_type_or_shape(predict, change, said):
    answer = predict("kinds", {"inputs": {**KINDS, **change}})
    assert answer.status == 400
    assert said in answer.error


def test_several_inputs_need_objects(ask, url):
    for body in ({"instances": [1, 2]}, {"inputs": [1, 2]}):
        answer = ask("POST", f"{url}:predict", body)
        assert answer.status == 400
        assert "multiple input tensors" in answer.error


def test_rows_that_lack_an_input(ask, url, rows):
    row = instances(rows)[0]
    del row["hr"]
    answer = ask("POST", f"{url}:predict", {"instances": [row]})
    assert answer.status == 400
    assert "hr" in answer.error


def test_what_the_model_does_not_read_is_refused(ask, url, rows):
    answer = ask("POST", f"{url}:predict", {"instances": [{**instances(rows)[0], "casual": 3}]})
    assert answer.status == 400
    assert "casual" in answer.error


def test_columns_of_different_lengths(ask, url, rows):
    columns = {name: values.tolist() for name, values in rows.items()}
    answer = ask("POST", f"{url}:predict", {"inputs": {**columns, "hr": columns["hr"][:-1]}})
    assert answer.status == 400


def test_examples_as_bytes(ask, url, rows):
    from bike_pipeline import features
    from tests.serving.conformance.stubs import examples

    sent = [{"b64": base64.b64encode(example).decode()} for example in examples(rows)]
    answer = ask("POST", f"{url}:predict", {"signature_name": "serving_examples", "instances": sent})
    assert answer.status == 200, answer.body
    plain = ask("POST", f"{url}:predict", {"instances": instances(rows)})
    np.testing.assert_allclose(answer.json["predictions"], plain.json["predictions"], rtol=1e-4)
    assert features.LABEL not in json.dumps(answer.json)
