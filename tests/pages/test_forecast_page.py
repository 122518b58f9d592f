"""The page for people as Chromium shows it: by mouse, by keyboard, on a phone, from a server and as one file."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from bike_pipeline import Workspace
from bike_pipeline.data.embedded_dataset import EMBEDDED_FILE
from bike_pipeline.model_registry import ModelRegistry
from bike_pipeline.serving.records import to_columns
from tests.conftest import Exported
from tests.pages import pictures
from tests.pages.browsing import Tab, tab
from tests.pages.pictures import DRAWN, FILL, HOUR, WHY
from tests.pages.test_in_a_browser import BACKGROUND, TOO_WIDE
from tests.serving.running import MODEL, Running, push, running_server, simple_model, with_export
from tests.serving.server.asking import asked

PASTE = "document.getElementById('table').value = %s; document.querySelector('#table-form button').click()"
# A file is chosen as a person does, up to the dialogue, which no page can open.
CHOOSE = """(() => {
  const chosen = new DataTransfer();
  chosen.items.add(new File([%s], 'weather.csv'));
  const field = document.getElementById('file');
  field.files = chosen.files;
  field.dispatchEvent(new Event('change'));
})()"""
ROOT = Path(__file__).resolve().parents[2]
CELLS = "[...document.querySelectorAll('%s tbody tr')].map(row => [...row.cells].map(cell => cell.innerText.trim()))"
UNKNOWN = {
    "weathersit_mean_1h": 0.0, "weathersit_mean_3h": 0.0, "temp_mean_3h": 0.0, "temp_mean_24h": 0.0,
    "hum_mean_3h": 0.0, "windspeed_mean_3h": 0.0,
}  # fmt: skip
# The same hour as the REST API takes it: 15 June 2012 was a Friday.
ROW = {
    "yr": 1, "mnth": 6, "day": 15, "hr": 17, "holiday": 0, "weekday": 5, "workingday": 1, "weathersit": 1,
    "temp": (25 + 8) / 47, "atemp": (27.5 + 16) / 66, "hum": 0.5, "windspeed": 13.4 / 67, **UNKNOWN,
}  # fmt: skip
HEADER = "date,hour,weather,temperature,humidity,wind"
GOOD = "2012-06-15,17,clear,25,50,13.4"


@pytest.fixture(scope="module")
def server(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with the page, of a promoted version and a canary that gets a part of the requests."""
    base = tmp_path_factory.mktemp("forecast-served")
    model = with_export(exported.path, tmp_path_factory.mktemp("forecast-model") / "model")
    registry = ModelRegistry(base / MODEL)
    for version in (1, 2):
        push(base, model, version)
        if version == 1:
            registry.begin()
        registry.set_validated(version, passed=True, reason="it answers")
    registry.shift(2, "canary", 25.0, "it does well so far")
    with running_server(base, tmp_path_factory.mktemp("forecast-workspace"), "serving.server.ui=true") as running:
        yield running


def opened(browser: str, address: str, look: Callable[[Tab], Awaitable[Any]]) -> Any:
    """Open the page, wait until it knows which version answers, and return what a look at it comes to."""

    async def answer() -> Any:
        async with tab(browser, address if "://" in address else f"http://{address}/ui/") as page:
            await page.wait("state && state.serving")
            found = await look(page)
            # Its own policy is no obstacle to it.
            assert await page.evaluate("refused") == []
            return found

    return asyncio.run(answer())


async def show_everything(page: Tab) -> None:
    """Let it show an answer, its reason, a chart, a table and a line that is wrong."""
    await pictures.show_everything(page)
    lines = await page.evaluate("document.getElementById('table').value")
    await page.evaluate(PASTE % json.dumps(f"{lines}\n2012-06-31,3,clear,20,50,10,no"))
    await page.wait(f"document.querySelector('#table-problems li') && {DRAWN}")


def text(selector: str) -> str:
    return f"document.querySelector('{selector}').innerText"


def answers_of(server: Running, rows: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    status, told = asked(f"{server.url}:predict", {"signature_name": "serving_intervals", "instances": rows})
    assert status == 200
    return list(told["predictions"])


def as_shown(answer: dict[str, float]) -> list[str]:
    # JavaScript rounds a half up, and no answer is one.
    return [f"{answer['cnt']:,.0f}", f"{answer['p05']:,.0f} to {answer['p95']:,.0f}"]


def pasted(browser: str, server: Running, table: str) -> tuple[str, list[str], list[list[str]]]:
    """Return what the page says of a table: a sentence, what is wrong with lines, and the cells of its answers."""

    async def look(page: Tab) -> Any:
        await page.evaluate(PASTE % json.dumps(table))
        await page.wait("document.querySelector('#table-answer p')")
        problems = "[...document.querySelectorAll('#table-problems li')].map(one => one.innerText)"
        return await page.evaluate(f"[{text('#table-answer')}, {problems}, {CELLS % '#table-rows'}]")

    sentence, problems, cells = opened(browser, server.rest, look)
    return sentence, problems, cells


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


@pytest.mark.parametrize("way", [PASTE, CHOOSE], ids=["pasted", "from a file"])
def test_48_hours_are_a_chart_and_a_table_of_what_every_client_gets(browser: str, server: Running, way: str) -> None:
    hours = [(day, hour) for day in (15, 16) for hour in range(24)]
    lines = [f"2012-06-{day},{hour},mist,{10 + hour / 2},60,12.5" for day, hour in hours]

    async def look(page: Tab) -> Any:
        await page.evaluate(way % json.dumps("\n".join([HEADER, *lines])))
        await page.wait(DRAWN)
        corners = "document.querySelector('#chart ' + one).getAttribute('d').split('L').length"
        drawn = f"['path.band', 'path.line'].map(one => {corners})"
        label = "document.querySelector('#chart svg').getAttribute('aria-label')"
        head = "[...document.querySelectorAll('#table-rows th[scope=col]')].map(cell => cell.innerText)"
        return await page.evaluate(f"[{CELLS % '#table-rows'}, {drawn}, {label}, {head}]")

    cells, drawn, label, head = opened(browser, server.rest, look)
    rows = [
        {**ROW, "day": day, "weekday": 5 + day - 15, "workingday": int(day == 15), "hr": hour, "weathersit": 2,
         "temp": (10 + hour / 2 + 8) / 47, "atemp": (10 + hour / 2 + 16) / 66, "hum": 0.6, "windspeed": 12.5 / 67}
        for day, hour in hours
    ]  # fmt: skip
    assert [row[1:] for row in cells] == [as_shown(answer) for answer in answers_of(server, rows)]
    assert (cells[0][0], cells[-1][0]) == ("Fri 15 Jun, 00:00", "Sat 16 Jun, 23:00")
    assert drawn == [2 * 48, 48]
    assert label.startswith("Forecast of 48 hours: least ")
    assert head == ["hour", "rentals an hour", "90 of 100 are between"]


def test_a_table_may_hold_the_columns_of_the_training_data(browser: str, server: Running) -> None:
    with EMBEDDED_FILE.open(encoding="utf-8", newline="") as file:
        records = [row for row in csv.DictReader(file) if row["dteday"] == "2012-03-01"]
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, list(records[0]), delimiter=";")
    writer.writeheader()
    writer.writerows({**row, "temp": row["temp"].replace(".", ",")} for row in records)
    sentence, problems, cells = pasted(browser, server, table.getvalue())
    assert problems == []
    assert sentence.startswith(f"{len(records)} hours, answered by version 1.")
    columns = to_columns(records, "the table")
    rows = [dict(zip(columns, values, strict=True)) | UNKNOWN for values in zip(*columns.values(), strict=True)]
    assert [row[1:] for row in cells] == [as_shown(answer) for answer in answers_of(server, rows)]


WRONG = {
    "2012-06-31,3,clear,25,50,10": 'date: "2012-06-31" is none',
    "2010-06-15,3,clear,25,50,10": "date: 2010-06-15 is not from 2011 on",
    "2012-06-15,24,clear,25,50,10": 'hour: "24" is no full hour from 0 to 23',
    "2012-06-15,3:30,clear,25,50,10": 'hour: "3:30" is no full hour from 0 to 23',
    "2012-06-15,3,sunny,25,50,10": 'weather: "sunny" is none of 1 clear, 2 mist',
    "2012-06-15,3,clear,warm,50,10": 'temperature: "warm" is no number',
    "2012-06-15,3,clear,,50,10": 'temperature: "" is no number',
    "2012-06-15,3,clear,45,50,10": "temperature: 45 °C is not from -8 to 39",
    "2012-06-15,3,clear,25,150,-1": "humidity: 150 % is not from 0 to 100; wind: -1 km/h is not from 0 to 67",
    "2012-06-15,3,clear,25,50": "5 fields, and the header has 6",
    "2012-06-15,17:00,mist,25,50,10": "the same hour as line 2",
}


def test_lines_that_are_wrong_are_named_and_the_others_are_forecast(browser: str, server: Running) -> None:
    last = "2012-06-15T18:00,18,1,25,50,10".replace("T18:00", "")
    sentence, problems, cells = pasted(browser, server, "\n".join([HEADER, GOOD, *WRONG, "", last]))
    assert len(problems) == len(WRONG)
    for number, (problem, expected) in enumerate(zip(problems, WRONG.values(), strict=True), 3):
        assert problem.startswith(f"Line {number}: {expected}")
    assert f"{len(WRONG)} of the lines are left out" in sentence
    assert [row[0] for row in cells] == ["Fri 15 Jun, 17:00", "Fri 15 Jun, 18:00"]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("date,hour,weather,temperature\n2012-06-15,3,clear,25", "Line 1: the header does not name humidity, wind."),
        (GOOD, "There is no line below a header."),
        (f"{HEADER}\nyesterday,3,clear,25,50,10", "No line can be forecast"),
        ("\n".join([HEADER, *[GOOD] * 745]), "There are 745 lines, and at most 744"),
    ],
    ids=["header", "no line", "none is right", "too many"],
)
def test_a_table_that_cannot_be_read_says_why(browser: str, server: Running, table: str, said: str) -> None:
    sentence, _, cells = pasted(browser, server, table)
    assert sentence.startswith(said)
    assert cells == []


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
