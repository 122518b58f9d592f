"""The page for people as Chromium shows it: forecasts by mouse, by keyboard and on a phone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from importlib import resources
from typing import Any

import pytest

from tests.conftest import Exported
from tests.pages.browsing import Tab, tab
from tests.pages.test_in_a_browser import BACKGROUND, TOO_WIDE
from tests.serving.running import Running, push, running_server, with_export
from tests.serving.server.asking import asked

FILL = """Object.entries(%s).forEach(([name, value]) => {
  const field = document.getElementById(name);
  if (field.type === 'checkbox') field.checked = value; else field.value = value;
}); document.querySelector('#hour-form button').click()"""
HOUR = {"date": "2012-06-15", "hour": 17, "weather": 1, "temp": 25, "atemp": 27.5, "hum": 50, "windspeed": 13.4}
# The same hour as the REST API takes it: 15 June 2012 was a Friday.
ROW = {
    "yr": 1, "mnth": 6, "day": 15, "hr": 17, "holiday": 0, "weekday": 5, "workingday": 1, "weathersit": 1,
    "temp": (25 + 8) / 47, "atemp": (27.5 + 16) / 66, "hum": 0.5, "windspeed": 13.4 / 67, "weathersit_mean_1h": 0.0,
    "weathersit_mean_3h": 0.0, "temp_mean_3h": 0.0, "temp_mean_24h": 0.0, "hum_mean_3h": 0.0, "windspeed_mean_3h": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def server(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with the page."""
    base = tmp_path_factory.mktemp("forecast-served")
    push(base, with_export(exported.path, tmp_path_factory.mktemp("forecast-model") / "model"), 1)
    with running_server(base, tmp_path_factory.mktemp("forecast-workspace"), "serving.server.ui=true") as running:
        yield running


def opened(browser: str, server: Running, look: Callable[[Tab], Awaitable[Any]]) -> Any:
    """Open the page, wait until it knows which version answers, and return what a look at it comes to."""

    async def answer() -> Any:
        async with tab(browser, f"http://{server.rest}/ui/") as page:
            await page.wait("state && state.serving")
            return await look(page)

    return asyncio.run(answer())


def text(selector: str) -> str:
    return f"document.querySelector('{selector}').innerText"


def test_a_forecast_is_what_every_client_gets(browser: str, server: Running) -> None:
    async def look(page: Tab) -> Any:
        await page.evaluate(FILL % json.dumps(HOUR))
        await page.wait("document.querySelector('#hour-answer .answer')")
        return await page.evaluate(text("#hour-answer"))

    said = opened(browser, server, look)
    status, told = asked(f"{server.url}:predict", {"signature_name": "serving_intervals", "instances": [ROW]})
    assert status == 200
    (answer,) = told["predictions"]
    assert f"{answer['cnt']:,.0f} rentals an hour" in said
    assert f"90 of 100 such hours are between {answer['p05']:,.0f} and {answer['p95']:,.0f}" in said
    assert "version 1" in said


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_that_keeps_anybody_out(browser: str, server: Running, scheme: str) -> None:
    axe = resources.files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    found = "axe.run().then(r => r.violations.map(v => [v.id, v.nodes.map(n => n.html.slice(0, 99))]))"

    async def look(page: Tab) -> Any:
        await page.resize(1280, scheme=scheme)
        await page.evaluate(FILL % json.dumps(HOUR))
        await page.wait("document.querySelector('#hour-answer .answer')")
        return await page.evaluate(f"{axe};{found}"), await page.evaluate(BACKGROUND)

    violations, background = opened(browser, server, look)
    assert violations == []
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(13, 17, 23)"}[scheme]


def test_nothing_is_wider_than_a_phone(browser: str, server: Running) -> None:
    async def look(page: Tab) -> Any:
        await page.resize(360)
        await page.evaluate(FILL % json.dumps(HOUR))
        await page.wait("document.querySelector('#hour-answer .answer')")
        return await page.evaluate(TOO_WIDE)

    assert opened(browser, server, look) == "[true,[]]"
