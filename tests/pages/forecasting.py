"""The page for people, as the tests ask it: what is typed, what is read, and what every other client gets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from tests.pages import pictures
from tests.pages.browsing import Tab, tab
from tests.pages.pictures import DRAWN
from tests.serving.running import Running
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
