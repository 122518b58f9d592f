"""Pages as Chromium lays them out: on a phone, on a desk, dark and on paper."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bike_pipeline import features
from bike_pipeline.lineage.queries.feature_statistics import FeatureStatistics
from bike_pipeline.lineage.queries.history import History
from bike_pipeline.lineage.queries.model_lookup import find_model
from bike_pipeline.lineage.reports import lineage_report, run_page
from bike_pipeline.lineage.store.metadata_store import Lineage
from tests import chromium
from tests.lineage.world import Runs

A4_IN_PIXELS = 703
# Nothing but the drawing, which has a bar of its own to move it by, may be wider than the page.
TOO_WIDE = """(() => {
  const page = document.documentElement.clientWidth + 1;
  const wide = [...document.querySelectorAll('body *')].filter(e =>
    !e.closest('.drawing') && (e.getBoundingClientRect().right > page || e.scrollWidth > page));
  return JSON.stringify([document.documentElement.scrollWidth <= page, wide.map(e => e.outerHTML.slice(0, 99))]);
})()"""
DRAWING = "document.querySelector('.drawing svg').getBoundingClientRect().right <= document.documentElement.clientWidth"
BACKGROUND = "getComputedStyle(document.body).backgroundColor"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a headless Chromium takes commands."""
    program, environment = chromium.found()
    profile = tmp_path_factory.mktemp("profile")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
               f"--user-data-dir={profile}", "--remote-debugging-port=0"]  # fmt: skip
    process = subprocess.Popen([program, *options, "about:blank"], env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        yield next(m[1] for line in process.stderr if (m := re.search(r"listening on ws://([^/]+)/", line)))
    finally:
        process.kill()
        process.wait()


def ask(browser: str, page: Path, width: int, expression: str, media: str = "screen", scheme: str = "light") -> Any:
    """Open a page as wide as told, for a screen or for paper; return what an expression is there."""

    async def answer() -> Any:
        async with aiohttp.ClientSession() as session:
            async with session.put(f"http://{browser}/json/new?{page.as_uri()}") as opened:
                target = await opened.json()
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:

                async def call(number: int, method: str, **parameters: Any) -> Any:
                    await socket.send_json({"id": number, "method": method, "params": parameters})
                    while (found := await socket.receive_json()).get("id") != number:
                        pass
                    return found["result"]

                size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
                await call(1, "Emulation.setDeviceMetricsOverride", **size)
                preferred = [{"name": "prefers-color-scheme", "value": scheme}]
                await call(2, "Emulation.setEmulatedMedia", media=media, features=preferred)
                ready = "new Promise(r => document.readyState == 'complete' ? r(1) : addEventListener('load', r))"
                await call(3, "Runtime.evaluate", expression=ready, awaitPromise=True)
                return (await call(4, "Runtime.evaluate", expression=expression))["result"]["value"]

    return asyncio.run(answer())


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run with all that a page can hold, a lineage and a model card."""
    folder = tmp_path_factory.mktemp("pages")
    runs = Runs(tmp_path_factory.mktemp("world")).two()
    lineage = Lineage(runs.recorder.store)
    chosen = find_model(lineage, runs.settings.serving_path, None)
    report = lineage_report.report_of_model(History(lineage), chosen, runs.settings.store_uri)
    values = {"rows": 8000, "missing": 0, "mean": 0.123456, "std": 0.1234, "low": 0.0, "median": 0.5, "high": 1.0}
    statistics = {
        f.name: FeatureStatistics(**values, buckets=((0.0, 0.5, 1.0), (0.5, 1.0, 7.0))) for f in features.FEATURES
    }
    run = run_page.explain(lineage, None, runs.settings.store_uri)
    run = replace(run, exports=exports(), now=statistics, before=statistics)
    contents = {
        "run": run_page.as_page(run),
        "lineage": lineage_report.as_page(report),
        "card": lineage_report.as_card(report),
    }
    for name, content in contents.items():
        (folder / f"{name}.html").write_text(content, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in contents}


def exports() -> dict[str, Any]:
    """Return what came of seven formats, in the words of the longest of them."""
    entry = {
        "passed": True, "title": "LiteRT int8, dynamic range", "worst_slice": "weather heavy rain or snow",
        "reason": "MAE -0.01% overall, at most +1.00%; +0.16% on the worst slice, hours 6-9, at most +3.00%",
        "parity": {"max_difference": 0.000458, "max_relative_difference": 1.3e-06}, "rmse": 68.05,
        "mae_increase": 0.0016, "worst_slice_mae_increase": 0.0031, "cold_start_ms": 1438.0, "size_bytes": 462_848,
        "latency_us": 842.0, "rows_per_second": 2_985_000.0,
    }  # fmt: skip
    gate = {"blessed": True, "reason": "TFMA and all of 24 binding thresholds bless LiteRT float32"}
    formats = {str(number): entry for number in range(7)}
    return {"formats": formats, "golden": {"rows": 1000}, "eval_rows": 1712, "edge_gate": gate, "reason": ""}


@pytest.mark.parametrize("name", ["run", "lineage", "card"])
@pytest.mark.parametrize(("width", "media"), [(390, "screen"), (1280, "screen"), (A4_IN_PIXELS, "print")])
def test_nothing_is_wider_than_the_page(
    browser: str, pages: dict[str, Path], name: str, width: int, media: str
) -> None:
    assert ask(browser, pages[name], width, TOO_WIDE, media) == "[true,[]]"


def test_on_paper_the_whole_drawing_is_there(browser: str, pages: dict[str, Path]) -> None:
    assert ask(browser, pages["run"], A4_IN_PIXELS, DRAWING, "print")


def test_dark_is_dark_and_paper_is_white(browser: str, pages: dict[str, Path]) -> None:
    assert ask(browser, pages["card"], 1280, BACKGROUND, scheme="dark") == "rgb(13, 17, 23)"
    assert ask(browser, pages["card"], A4_IN_PIXELS, BACKGROUND, "print", scheme="dark") == "rgb(255, 255, 255)"
