"""Take the pictures of docs/ui.md: `python -m tests.pages.pictures ADDRESS docs/images`, of a server with the page."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from pathlib import Path

from PIL import Image

from tests import chromium
from tests.pages.browsing import Tab, tab
from tests.pages.conftest import started

HOUR = {"date": "2012-06-15", "hour": 17, "weather": 1, "temp": 25, "atemp": 27.5, "hum": 50, "windspeed": 13.4}
FILL = """Object.entries(%s).forEach(([name, value]) => {
  const field = document.getElementById(name);
  if (field.type === 'checkbox') field.checked = value; else field.value = value;
}); document.querySelector('#hour-form button').click()"""
WHY = "document.querySelector('#hour-why table')"
DRAWN = "document.querySelector('#table-rows table')"


async def show_everything(page: Tab) -> None:
    """Let the page show an answer and its reason, and a chart and a table of 48 hours."""
    await page.wait("state && state.serving")
    await page.evaluate(FILL % json.dumps(HOUR))
    await page.wait(WHY)
    await page.evaluate("document.getElementById('example').click()")
    await page.wait(f"{DRAWN} && document.querySelector('#chart svg')")


async def take(browser: str, address: str, folder: Path) -> list[Path]:
    """Write the pictures of a page at an address into a folder; return their files."""
    taken = []
    async with tab(browser, address) as page:
        for name, width, scheme, begin, end in (
            ("ui-hour.png", 820, "light", "h1", "#hour-why"),
            ("ui-hours.png", 820, "light", "#many-hours", "#chart"),
            ("ui-phone.png", 360, "dark", "h1", "#hour-why"),
        ):
            await page.resize(width, scheme=scheme)
            await show_everything(page)
            taken.append(folder / name)
            drawn = Image.open(io.BytesIO(await page.picture(begin, end))).convert("RGB")
            # A page has few colours, and a palette of them takes a third of the bytes.
            drawn.quantize(64).save(taken[-1], optimize=True)
    return taken


if __name__ == "__main__":
    program, environment = chromium.found()
    with started(program, environment) as running:
        for file in asyncio.run(take(running, sys.argv[1], Path(sys.argv[2]))):
            print(file, file.stat().st_size)
