"""The page for people: what the server gives of it, and that nothing changes where it is off."""

from __future__ import annotations

import re
import urllib.request

import pytest

from bike_pipeline.model_registry import ModelRegistry
from bike_pipeline.pages import forecast
from tests.serving.running import MODEL, push, running_server
from tests.serving.server.asking import asked, available, wait_until

FILES = ("", "style.css", "page.js")


@pytest.fixture(scope="module")
def with_ui(servable_model, tmp_path_factory):
    """A server with the page, of a promoted version 1 and a version 2 that may become a canary."""
    base = tmp_path_factory.mktemp("with-ui")
    for version in (1, 2):
        push(base, servable_model, version)
    registry = ModelRegistry(base / MODEL)
    registry.begin()
    for version in (1, 2):
        registry.set_validated(version, passed=True, reason="it answers")
    registry.promote(1, reason="the first")
    settings = ("serving.server.ui=true", "serving.server.poll_seconds=0.05")
    with running_server(base, tmp_path_factory.mktemp("with-ui-workspace"), *settings) as running:
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


def test_the_state_follows_the_release(with_ui):
    def state():
        return asked(f"http://{with_ui.rest}/ui/state.json")[1]

    registry = ModelRegistry(with_ui.base / MODEL)
    promoted = registry.history()[-1]
    before = state()
    assert before["serving"] == "1"
    (only,) = before["versions"]
    assert only["labels"] == {"stable": promoted.at}
    assert before["release"]["shares"] == {}
    assert (before["release"]["action"], before["release"]["reason"]) == ("promote", "the first")

    first = registry.shift(2, "canary", 5.0, "try it")
    registry.shift(2, "canary", 25.0, "it does well")
    wait_until(lambda: available(with_ui) == [2, 1])
    during = state()
    assert during["serving"] == "1"
    # Its share grew, but it is the canary since it was made one.
    assert {one["version"]: one["labels"] for one in during["versions"]}["2"] == {"canary": first.at}
    assert during["release"]["shares"] == {"canary": {"version": "2", "percent": 25.0}}

    registry.promote(2, reason="all of it")
    wait_until(lambda: state()["serving"] == "2")
    after = state()
    assert after["release"]["shares"] == {}
    assert {one["version"]: set(one["labels"]) for one in after["versions"]}["2"] == {"stable"}


def test_what_is_promoted_need_not_be_readable(with_ui):
    place = with_ui.base / MODEL / "deployment.json"
    content = place.read_bytes()
    try:
        place.write_bytes(b"{")
        status, told = asked(f"http://{with_ui.rest}/ui/state.json")
    finally:
        place.write_bytes(content)
    assert status == 200
    assert told["release"] is None


def test_the_page_knows_units_and_ranges_from_the_feature_contract():
    about = forecast.files("other")[""][1].decode()
    assert '"model": "other"' in about
    assert 'name="temp" type="number" step="any" min="-8.0" max="39.0"' in about
    assert 'name="windspeed" type="number" step="any" min="0.0" max="67.0"' in about
