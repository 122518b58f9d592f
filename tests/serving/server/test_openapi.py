"""The OpenAPI document says what the server takes and answers."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from bike_pipeline import features
from bike_pipeline.commands.serve import serve_command as command
from bike_pipeline.modeling.golden import golden_rows
from bike_pipeline.serving.server.openapi import document
from bike_pipeline.settings import load_settings

COMMITTED = Path(__file__).resolve().parents[3] / "docs" / "openapi.json"


@pytest.fixture(scope="module")
def base():
    return document(load_settings())


def schema_of(found, name):
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": found["components"]})


def in_range(row):
    return all(features.BY_NAME[n].minimum <= v <= (features.BY_NAME[n].maximum or 100) for n, v in row.items())


def rows(count, inputs=features.REQUIRED_INPUTS):
    """Golden rows within the contract's ranges, as columns and as rows; others are golden too, to prove parity."""
    wanted = [feature.name for feature in inputs]
    columns = {name: values.tolist() for name, values in golden_rows(1000).items() if name in wanted}
    found = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    found = [row for row in found if in_range(row)][:count]
    assert len(found) == count
    return {name: [row[name] for row in found] for name in columns}, found


@pytest.mark.parametrize(
    ("assignments", "key"),
    [((), ""), (("serving.server.metrics=false",), "k" * 32)],
    ids=["open", "with-key"],
)
def test_the_document_is_valid_openapi(monkeypatch, assignments, key):
    monkeypatch.setenv("BIKE_SERVING_SERVER_KEY", key)
    OpenAPIV31SpecValidator(document(load_settings(None, assignments))).validate()


def test_the_committed_document_is_the_one_of_the_settings_that_ship(base):
    assert json.loads(COMMITTED.read_text(encoding="utf-8")) == base, (
        "write it again with: bike-pipeline serve --openapi > docs/openapi.json"
    )


def test_the_command_prints_it():
    printed = CliRunner().invoke(command, ["--openapi", "--set", "serving.model_name=bikes"])
    assert "/v1/models/bikes:predict" in json.loads(printed.stdout)["paths"]


def test_every_input_of_the_model_has_its_type_its_meaning_and_only_bounds_that_are_held(base):
    for name, inputs in (("Hour", features.REQUIRED_INPUTS), ("CompleteHour", features.MODEL_INPUTS)):
        hour = base["components"]["schemas"][name]
        assert set(hour["required"]) == set(hour["properties"]) == {feature.name for feature in inputs}
    for feature in features.MODEL_INPUTS:
        value = base["components"]["schemas"][feature.name]
        assert value["type"] == {"int": "integer", "float": "number"}[feature.kind]
        assert feature.meaning in value["description"]
        assert f"learnt from {feature.minimum:g}" in value["description"]
        # An int64 is all that the server holds a number to, see below.
        bounds = {"minimum": -(2**63), "maximum": 2**63 - 1} if feature.kind == "int" else {}
        assert {name: value[name] for name in ("minimum", "maximum") if name in value} == bounds


def test_the_models_own_golden_rows_are_valid_requests_and_what_is_refused_is_not(base):
    request = schema_of(base, "PredictRequest")
    columns, instances = rows(20)
    assert request.is_valid({"instances": instances})
    assert request.is_valid({"inputs": columns, "signature_name": "serving_default"})
    complete, complete_instances = rows(20, features.MODEL_INPUTS)
    for body in ({"inputs": complete}, {"instances": complete_instances}):
        assert request.is_valid({**body, "signature_name": "serving_all_inputs"})
        assert not request.is_valid(body)
    for wrong in (
        {},
        {"instances": instances, "inputs": columns},
        {"instances": []},
        {"instances": [{**instances[0], "casual": 3}]},
        {"instances": [{**instances[0], "hr": 8.5}]},
        {"instances": [{name: value for name, value in instances[0].items() if name != "hr"}]},
        {"inputs": {**columns, "hr": "8"}},
    ):
        assert not request.is_valid(wrong), wrong


def test_a_running_server_answers_what_the_document_allows_and_refuses_what_it_does_not(model_server, base):
    def status_of(instance):
        body = json.dumps({"instances": [instance]}).encode()
        try:
            with urllib.request.urlopen(
                urllib.request.Request(f"http://{model_server.rest}/v1/models/bike_demand:predict", body), timeout=60
            ) as response:
                return response.status
        except urllib.error.HTTPError as error:
            return error.code

    hour = schema_of(base, "Hour")
    _, (one,) = rows(1)
    for feature in features.REQUIRED_INPUTS:
        for value in (-1, 99, 2**63 - 1, -(2**63), 2**63, -(2**63) - 1, "8"):
            asked = {**one, feature.name: value if feature.kind == "int" or value == "8" else float(value)}
            assert (status_of(asked) == 200) == hour.is_valid(asked), asked


def test_a_key_is_asked_for_where_there_is_one(base, monkeypatch):
    assert base["security"] == []
    monkeypatch.setenv("BIKE_SERVING_SERVER_KEY", "k" * 32)
    assert document(load_settings())["security"] == [{"Bearer": []}]


def test_a_running_server_shows_it_and_answers_as_it_says(model_server):
    def asked(path, body=None):
        data = body if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{model_server.rest}{path}", data)
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.loads(response.read())

    shown = asked("/openapi.json")
    columns, instances = rows(3)
    complete, complete_instances = rows(3, features.MODEL_INPUTS)
    every = {"signature_name": "serving_all_inputs"}
    model = "/v1/models/bike_demand"
    for path, body, schema in (
        (model, None, "Status"),
        (f"{model}/versions/1", None, "Status"),
        (f"{model}/metadata", None, "Metadata"),
        (f"{model}:predict", {"instances": instances}, "PredictResponse"),
        (f"{model}:predict", {"inputs": columns}, "PredictResponse"),
        (f"{model}:predict", {"inputs": complete, **every}, "PredictResponse"),
        (f"{model}:predict", {"instances": complete_instances, **every}, "PredictResponse"),
        ("/openapi.json", None, "Document"),
    ):
        schema_of(shown, schema).validate(asked(path, body))
        assert schema_of(shown, "PredictRequest").is_valid(body) or body is None
