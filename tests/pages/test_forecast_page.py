"""The page for people as Chromium shows it: by mouse, by keyboard, on a phone, from a server and as one file."""

from __future__ import annotations

import asyncio
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from bike_pipeline import Workspace
from bike_pipeline.model_registry import ModelRegistry
from bike_pipeline.serving.records import to_columns
from tests.pages import pictures
from tests.pages.browsing import Tab, tab
from tests.pages.forecasting import (
    CELLS,
    GOOD,
    HEADER,
    ROOT,
    ROW,
    UNKNOWN,
    answers_of,
    opened,
    show_everything,
    text,
)
from tests.pages.pictures import DRAWN, FILL, HOUR, WHY
from tests.pages.test_in_a_browser import BACKGROUND, TOO_WIDE
from tests.serving.running import MODEL, Running, push, running_server, simple_model
from tests.serving.server.asking import asked


def test_a_forecast_is_what_every_client_gets(browser: str, server: Running) -> None:
    async def look(page: Tab) -> Any:
        await page.evaluate(FILL % json.dumps(HOUR))
        await page.wait("document.querySelector('#hour-answer .answer')")
        return await page.evaluate(text("#hour-answer"))

    said = opened(browser, server.rest, look)
    (answer,) = answers_of(server, [ROW])
    assert f"{answer['cnt']:,.0f} rentals an hour" in said
    assert f"90 of 100 such hours are between {answer['p05']:,.0f} and {answer['p95']:,.0f}" in said
    assert "Answered by version 1." in said


def test_what_is_sent_is_what_the_feature_contract_says(browser: str, server: Running) -> None:
    hour = {**HOUR, "date": "2012-07-04", "holiday": True, "atemp": ""}

    async def look(page: Tab) -> Any:
        hold = "fetch = (url, more) => (sent.push([url, more?.body]), send(url, more))"
        await page.evaluate(f"const send = fetch; window.sent = []; {hold}")
        await page.evaluate(FILL % json.dumps(hour))
        await page.wait("document.querySelector('#hour-answer .answer')")
        return await page.evaluate("sent.find(([url]) => url.endsWith(':predict'))")

    address, body = opened(browser, server.rest, look)
    assert address == f"/v1/models/{MODEL}/versions/1:predict"
    record = {
        "dteday": "2012-07-04", "hr": 17, "holiday": 1, "weathersit": 1, "temp": (25 + 8) / 47,
        "atemp": (25 + 16) / 66, "hum": 50 / 100, "windspeed": 13.4 / 67,
    }  # fmt: skip
    expected = {name: values[0] for name, values in to_columns([record], "the form").items()}
    (row,) = json.loads(body)["instances"]
    assert row == {**expected, **UNKNOWN, "day": 4}


def test_the_reason_adds_up_to_the_answer(browser: str, server: Running) -> None:
    async def look(page: Tab) -> Any:
        await page.evaluate(FILL % json.dumps(HOUR))
        await page.wait(WHY)
        return await page.evaluate(
            f"[{text('#hour-why caption')}, {CELLS % '#hour-why'}, {text('#hour-answer .answer')}]"
        )

    caption, rows, said = opened(browser, server.rest, look)
    base, answer = (int(number.replace(",", "")) for number in re.findall(r"[\d,]+", caption))
    words = [words for words, _ in rows]
    assert {"17:00 on Friday, a working day", "15 June", "2012", "clear", "25 °C", "50 % humidity", "13 km/h wind"} == {
        *words
    }
    assert base + sum(int(value.replace("−", "-").replace(",", "")) for _, value in rows) == answer
    assert said.startswith(f"{answer:,} ")


def test_everything_is_done_by_keyboard_alone_and_the_focus_is_seen(browser: str, server: Running) -> None:
    async def look(page: Tab) -> Any:
        seen = []

        async def go_to(name: str) -> None:
            for _ in range(40):
                await page.press("Tab")
                here = await page.evaluate("document.activeElement.id || document.activeElement.type")
                outline = await page.evaluate("getComputedStyle(document.activeElement).outline")
                seen.append((here, "solid 3px" in outline))
                if here == name:
                    return
            raise AssertionError(f"no key leads to {name}")

        await go_to("temp")
        await page.evaluate("document.activeElement.select()")
        await page.type("12.5")
        await go_to("holiday")
        await page.press("Space")
        await page.press("Enter")
        await page.wait(WHY)
        first = await page.evaluate(text("#hour-why"))
        await go_to("table")
        await page.type(f"{HEADER}\n{GOOD}")
        await go_to("submit")
        await page.press("Enter")
        await page.wait(DRAWN)
        one = await page.evaluate(text("#table-answer"))
        await go_to("example")
        await page.press("Space")
        await page.wait("document.querySelectorAll('#table-rows tbody tr').length === 48")
        return seen, first, one

    seen, first, one = opened(browser, server.rest, look)
    assert [name for name, is_seen in seen if not is_seen] == []
    assert "13 °C" in first or "12 °C" in first
    assert "a holiday" in first
    assert one.startswith("1 hour, answered by version 1.")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_that_keeps_anybody_out(browser: str, server: Running, scheme: str) -> None:
    axe = resources.files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    found = "axe.run().then(r => r.violations.map(v => [v.id, v.nodes.map(n => n.html.slice(0, 99))]))"

    async def look(page: Tab) -> Any:
        await page.resize(1280, scheme=scheme)
        await show_everything(page)
        return await page.evaluate(f"{axe};{found}"), await page.evaluate(BACKGROUND)

    violations, background = opened(browser, server.rest, look)
    assert violations == []
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(13, 17, 23)"}[scheme]


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_window(browser: str, server: Running, width: int) -> None:
    async def look(page: Tab) -> Any:
        await page.resize(width)
        await show_everything(page)
        return await page.evaluate(TOO_WIDE)

    assert opened(browser, server.rest, look) == "[true,[]]"


def test_the_version_and_the_release_are_shown_and_followed(browser: str, server: Running) -> None:
    registry = ModelRegistry(server.base / MODEL)
    first, *_, shifted = registry.history()

    async def look(page: Tab) -> Any:
        before = await page.evaluate(f"[{text('#answering')}, {text('#release')}, {CELLS % '#release'}]")
        registry.shift(2, "canary", 50.0, "still")
        await page.evaluate("look()")
        return before, await page.evaluate(f"[{text('#release')}, {CELLS % '#release'}]")

    (answering, release, cells), (later, later_cells) = opened(browser, server.rest, look)
    assert first.label == "stable"
    assert re.fullmatch(r"Version 1 answers, stable since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC\.", answering)
    assert "A release is in progress: canary, version 2, has 25 % of the requests." in release
    assert "(it does well so far)" in release
    since = f"canary since {shifted.at[:19].replace('T', ' ')} UTC"
    assert cells[1] == ["2", since, "25 %"]
    assert (cells[0][0], cells[0][2]) == ("1", "75 %")
    assert "has 50 % of the requests" in later
    assert [row[2] for row in later_cells] == ["50 %", "50 %"]


def test_a_model_of_another_target_is_shown_in_its_own_unit(browser: str, tmp_path: Path) -> None:
    push(tmp_path / "models", simple_model(tmp_path / "model", 0.002, "busy_probability"), 1)

    async def look(page: Tab) -> Any:
        await page.evaluate(FILL % json.dumps(HOUR))
        await page.wait(WHY)
        return await page.evaluate(f"[{text('#hour-answer')}, {text('#hour-why caption')}, {CELLS % '#hour-why'}]")

    with running_server(tmp_path / "models", tmp_path / "workspace", "serving.server.ui=true") as running:
        said, caption, rows = opened(browser, running.rest, look)
    answer = 0.002 * (17 + 100 * ROW["temp"])
    assert said.startswith(f"A probability of {answer:.3f}")
    assert "This version tells no interval." in said
    base, shown = map(float, re.findall(r"\d\.\d+", caption))
    assert base + sum(float(value.replace("−", "-")) for _, value in rows) == pytest.approx(shown, abs=1e-9)


def test_whoever_asks_again_gets_the_newer_answer_alone(browser: str, server: Running) -> None:
    async def look(page: Tab) -> Any:
        # The first answer comes when the second is there.
        held = "const send = fetch; let let_go; const later = new Promise(done => let_go = done); let count = 0"
        hold = "fetch = async (...asked) => (asked[0].endsWith(':predict') && !count++ && await later, send(...asked))"
        await page.evaluate(f"{held}; {hold}")
        await page.evaluate(FILL % json.dumps({**HOUR, "hour": 3}))
        await page.evaluate(FILL % json.dumps(HOUR))
        await page.wait(WHY)
        await page.evaluate("(let_go(), later.then(() => new Promise(done => setTimeout(done, 300))))")
        return await page.evaluate(f"[{text('#hour-answer')}, {text('#hour-why')}]")

    said, why = opened(browser, server.rest, look)
    (answer,) = answers_of(server, [ROW])
    assert said.startswith(f"{answer['cnt']:,.0f} ")
    assert "17:00 on Friday" in why


def test_as_one_file_it_asks_the_server_that_it_was_made_for(browser: str, server: Running, tmp_path: Path) -> None:
    made = Workspace(tmp_path / "workspace").export_page(tmp_path / "page.html", server=f"http://{server.rest}")
    assert made.stat().st_size <= 100_000

    async def look(page: Tab) -> Any:
        await page.resize(360)
        await show_everything(page)
        return await page.evaluate(f"[{text('#hour-answer')}, {TOO_WIDE}]")

    said, fits = opened(browser, made.as_uri(), look)
    (answer,) = answers_of(server, [ROW])
    assert f"{answer['cnt']:,.0f} rentals an hour" in said
    assert fits == "[true,[]]"


def test_it_forecasts_where_a_server_has_no_page(browser: str, server: Running, tmp_path: Path) -> None:
    with running_server(server.base, tmp_path / "workspace") as other:
        made = Workspace(tmp_path / "workspace").export_page(tmp_path / "page.html", server=f"http://{other.rest}")

        async def look(page: Tab) -> Any:
            await page.evaluate(FILL % json.dumps(HOUR))
            await page.wait("document.querySelector('#hour-why p')")
            return await page.evaluate(f"[{text('#answering')}, {text('#hour-answer')}, {text('#hour-why')}]")

        answering, said, why = opened(browser, made.as_uri(), look)
    newest = asked(server.url)[1]["model_version_status"][0]["version"]
    assert answering == f"Version {newest} answers."
    assert f"Answered by version {newest}." in said
    assert why.startswith("This server tells no reason: ")


def test_a_server_that_is_gone_is_told(browser: str, server: Running, tmp_path: Path) -> None:
    made = Workspace(tmp_path / "workspace").export_page(tmp_path / "page.html", server="http://127.0.0.1:1")

    async def look() -> Any:
        async with tab(browser, made.as_uri()) as page:
            await page.wait("document.querySelector('#answering [role=alert]')")
            await page.evaluate(FILL % json.dumps(HOUR))
            await page.wait("document.querySelector('#hour-answer [role=alert]')")
            return await page.evaluate(text("#hour-answer"))

    assert asyncio.run(look()) == "The server at http://127.0.0.1:1 does not answer. Is it running?"


def test_the_documentation_has_its_pictures(browser: str, server: Running, tmp_path: Path) -> None:
    taken = asyncio.run(pictures.take(browser, f"http://{server.rest}/ui/", tmp_path))
    documented = ROOT / "docs" / "images"
    for file in taken:
        assert file.read_bytes().startswith(b"\x89PNG")
        assert (documented / file.name).stat().st_size <= 100_000
        assert f"images/{file.name}" in (ROOT / "docs" / "ui.md").read_text(encoding="utf-8")
