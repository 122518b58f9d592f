"""The page for people: what the server gives of it, and that nothing changes where it is off."""

from __future__ import annotations

import math
import re
import urllib.parse
import urllib.request

import numpy as np
import pytest

from bike_pipeline import features
from bike_pipeline.model_registry import ModelRegistry
from bike_pipeline.modeling.input_groups import GROUPS
from bike_pipeline.monitoring.explanations.answer import parts_of
from bike_pipeline.pages import forecast
from bike_pipeline.serving.server.explaining import OTHER_HOURS, other_hours
from tests.serving.running import MODEL, push, running_server
from tests.serving.server.asking import asked, available, wait_until

FILES = ("", "style.css", "page.js")


@pytest.fixture(scope="module")
def with_ui(servable_model, tmp_path_factory):
    """A server with the page, for tests that change nothing."""
    base = tmp_path_factory.mktemp("with-ui")
    push(base, servable_model, 1)
    with running_server(base, tmp_path_factory.mktemp("with-ui-workspace"), "serving.server.ui=true") as running:
        yield running


@pytest.fixture
def releasing(simple_models, tmp_path):
    """A server of a promoted version 1; a version 2 may become a canary."""
    registry = ModelRegistry(tmp_path / "models" / MODEL)
    for version in (1, 2):
        push(tmp_path / "models", simple_models[version], version)
        if version == 1:
            registry.begin()
        registry.set_validated(version, passed=True, reason="it answers")
    settings = ("serving.server.ui=true", "serving.server.poll_seconds=0.05")
    with running_server(tmp_path / "models", tmp_path / "workspace", *settings) as running:
        yield running


def fetched(running, name):
    with urllib.request.urlopen(f"http://{running.rest}/ui/{name}", timeout=60) as response:
        return response.headers, response.read()


@pytest.mark.parametrize("name", FILES)
def test_every_file_forbids_what_is_not_of_this_server(with_ui, name):
    headers, content = fetched(with_ui, name)
    policy = dict(rule.split(" ", 1) for rule in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert {policy[kind] for kind in ("script-src", "style-src", "connect-src")} == {"'self'"}
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    # XML's own names of vocabularies are no places that anything is fetched from.
    hosts = {host for host in re.findall(rb"//([\w.-]+\.\w+)", content) if host != b"www.w3.org"}
    assert not hosts


def test_the_page_has_no_script_and_no_style_in_it(with_ui):
    page = fetched(with_ui, "")[1].decode()
    assert re.findall(r"<script(?![^>]*(?:src=|application/json))", page) == []
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", page)


def test_it_is_small(with_ui):
    assert sum(len(fetched(with_ui, name)[1]) for name in FILES) <= 100_000


def test_the_address_without_a_slash_leads_to_the_page(with_ui):
    with urllib.request.urlopen(f"http://{with_ui.rest}/ui", timeout=60) as response:
        assert response.url.endswith("/ui/")
        assert b"<h1>" in response.read()


def test_what_is_not_there_is_not_found(with_ui):
    assert asked(f"http://{with_ui.rest}/ui/nothing.js")[0] == 404
    assert asked(f"http://{with_ui.rest}/ui/../openapi.json")[0] == 404


@pytest.mark.parametrize("path", ["ui", "ui/", "ui/state.json", "ui/page.js"])
def test_where_it_is_off_there_is_nothing(model_server, path):
    status, told = asked(f"http://{model_server.rest}/{path}")
    assert status == 404
    assert "--ui" in told["error"]


def test_the_state_follows_the_release(releasing):
    def state():
        return asked(f"http://{releasing.rest}/ui/state.json")[1]

    registry = ModelRegistry(releasing.base / MODEL)
    before = state()
    assert before["serving"] == "1"
    assert [one["version"] for one in before["versions"]] == ["1"]
    assert before["labels"] == {"stable": {"version": "1", "since": registry.history()[0].at, "percent": None}}
    assert (before["change"]["action"], before["change"]["reason"]) == ("validate", "it answers")
    assert "who" not in before["change"]

    first = registry.shift(2, "canary", 5.0, "try it")
    registry.shift(2, "canary", 25.0, "it does well")
    wait_until(lambda: available(releasing) == [2, 1])
    during = state()
    assert during["serving"] == "1"
    # Its share grew, but it is the canary since it was made one.
    assert during["labels"]["canary"] == {"version": "2", "since": first.at, "percent": 25.0}
    assert during["change"]["share"] == 25.0

    registry.abort("canary", "it does badly")
    again = registry.shift(2, "canary", 5.0, "mended")
    assert state()["labels"]["canary"]["since"] == again.at

    registry.promote(2, reason="all of it")
    wait_until(lambda: state()["serving"] == "2")
    after = state()
    assert {name: label["version"] for name, label in after["labels"].items()} == {"stable": "2"}


def test_what_is_promoted_need_not_be_readable(releasing):
    (releasing.base / MODEL / "deployment.json").write_bytes(b"{")
    status, told = asked(f"http://{releasing.rest}/ui/state.json")
    assert status == 200
    assert told["change"] is None
    assert told["serving"] == "1"


def test_the_page_knows_units_and_ranges_from_the_feature_contract():
    about = forecast.files("other")[""][1].decode()
    assert '"model": "other"' in about
    assert 'name="temp" type="number" step="any" min="-8.0" max="39.0"' in about
    assert 'name="windspeed" type="number" step="any" min="0.0" max="67.0"' in about


HOUR = {
    "yr": 1, "mnth": 6, "day": 15, "hr": 17, "holiday": 0, "weekday": 5, "workingday": 1, "weathersit": 2,
    "temp": 0.7, "atemp": 0.65, "hum": 0.5, "windspeed": 0.2,
}  # fmt: skip


def explained(running, hour, **more):
    return asked(f"http://{running.rest}/ui/explanation.json?{urllib.parse.urlencode({**hour, **more})}")


def answers(running, columns):
    """Return what the REST API answers to rows of all inputs, (rows,)."""
    sent = {
        name: np.asarray(values, np.int64 if features.BY_NAME[name].kind == "int" else np.float64).tolist()
        for name, values in columns.items()
    }
    body = {"signature_name": features.SERVING_ALL_INPUTS, "inputs": sent}
    status, told = asked(f"{running.url}/versions/1:predict", body)
    assert status == 200, told
    return np.array(told["outputs"])


def test_a_reason_adds_up_to_what_every_client_gets(with_ui):
    status, why = explained(with_ui, HOUR, version=1)
    assert status == 200
    assert why["version"] == "1"
    assert why["base"] + math.fsum(part["value"] for part in why["parts"]) == why["answer"]
    (answer,) = answers(with_ui, features.with_defaults({name: [value] for name, value in HOUR.items()}))
    assert why["answer"] == pytest.approx(answer, rel=1e-6)
    assert {part["group"] for part in why["parts"]} == {*GROUPS}
    sizes = [abs(part["value"]) for part in why["parts"]]
    assert sizes == sorted(sizes, reverse=True)


def test_a_reason_is_the_one_that_explain_tells(with_ui):
    _, why = explained(with_ui, HOUR, version=1)
    row = {feature.name: HOUR.get(feature.name, feature.default) for feature in features.MODEL_INPUTS}
    told = parts_of(lambda columns: answers(with_ui, columns), row, other_hours(), why["answer"])
    assert why["base"] == pytest.approx(told.base, rel=1e-5)
    expected = {part.group: (part.words, pytest.approx(part.value, abs=1e-2)) for part in told.parts}
    assert {part["group"]: (part["words"], part["value"]) for part in why["parts"]} == expected


def test_of_a_sum_each_group_gets_its_own_term(simple_models, tmp_path):
    push(tmp_path / "models", simple_models[1], 1)
    with running_server(tmp_path / "models", tmp_path / "workspace", "serving.server.ui=true") as running:
        _, why = explained(running, HOUR)
    # It answers hr + 100 temp, and takes no optional inputs.
    others = other_hours()
    values = {part["group"]: part["value"] for part in why["parts"]}
    assert values["hour"] == pytest.approx(17 - others["hr"].mean(), abs=1e-4)
    assert values["temperature"] == pytest.approx(100 * (0.7 - others["temp"].mean()), abs=1e-4)
    assert all(abs(value) < 1e-4 for group, value in values.items() if group not in ("hour", "temperature"))
    assert why["base"] == pytest.approx(others["hr"].mean() + 100 * others["temp"].mean(), abs=1e-4)


def test_the_other_hours_are_spread_over_two_years_and_the_day():
    others = other_hours()
    assert others.keys() == {feature.name for feature in features.MODEL_INPUTS}
    assert {len(values) for values in others.values()} == {OTHER_HOURS}
    assert np.bincount(others["yr"].astype(int)).tolist() == [12, 12]
    assert np.bincount(others["mnth"].astype(int), minlength=13)[1:].tolist() == [2] * 12
    assert abs(others["hr"].mean() - 11.5) < 1


def test_what_watches_the_model_does_not_hear_of_reasons(with_ui):
    def counted():
        with urllib.request.urlopen(f"http://{with_ui.rest}/monitoring/prometheus/metrics", timeout=60) as response:
            return re.findall(r"^bike_answered_rentals_count.*", response.read().decode(), re.MULTILINE)

    answers(with_ui, features.with_defaults({name: [value] for name, value in HOUR.items()}))
    before = counted()
    assert before
    assert explained(with_ui, HOUR)[0] == 200
    assert counted() == before


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"hr": "noon"}, "hr: noon is not a whole number from 0 to 23"),
        ({"temp": ""}, "temp: nothing is not a number from 0 to 1"),
        ({"temp": "nan"}, "temp: nan is not a number from 0 to 1"),
        ({"mnth": "9" * 30}, "is not a whole number from 1 to 12"),
        ({"yr": "9" * 30}, "is not a whole number from 0, years since 2011"),
    ],
)
def test_an_hour_that_is_none_is_refused(with_ui, changed, said):
    status, told = explained(with_ui, {**HOUR, **changed})
    assert status == 400
    assert said in told["error"]


def test_a_version_that_does_not_serve_explains_nothing(with_ui):
    assert explained(with_ui, HOUR, version=77)[0] == 404
    assert explained(with_ui, HOUR, version="9" * 40)[0] == 404
