"""Pages as Chromium lays them out: on a phone, on a desk, dark and on paper."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from bike_pipeline import features
from bike_pipeline.lineage.queries.feature_statistics import FeatureStatistics
from bike_pipeline.lineage.queries.history import History
from bike_pipeline.lineage.queries.model_lookup import find_model
from bike_pipeline.lineage.reports import lineage_report, run_page
from bike_pipeline.lineage.store.metadata_store import Lineage
from bike_pipeline.monitoring import report as monitor_report
from bike_pipeline.monitoring.explanations.page import answer_page
from bike_pipeline.monitoring.explanations.table import Explanation
from tests.lineage.world import Runs
from tests.monitoring.explanations.explaining import OF, WHY, explained_model_page
from tests.monitoring.test_report import made
from tests.pages.browsing import ask

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
        "monitor": monitor_report.as_page(made()),
        "answer": answer_page(Explanation(OF, WHY)),
        "model": explained_model_page(),
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


@pytest.mark.parametrize("name", ["run", "lineage", "card", "monitor", "answer", "model"])
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["run", "lineage", "card", "monitor", "answer", "model"])
def test_axe_finds_nothing_that_keeps_anybody_out(browser: str, pages: dict[str, Path], name: str, scheme: str) -> None:
    axe = resources.files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    told = "axe.run().then(r => JSON.stringify(r.violations.map(v => [v.id, v.nodes.map(n => n.html.slice(0, 99))])))"
    assert json.loads(ask(browser, pages[name], 1280, f"{axe};{told}", scheme=scheme)) == []


def test_a_mark_of_the_time_line_leads_to_its_evidence_by_keyboard(browser: str, pages: dict[str, Path]) -> None:
    follow = "(() => { document.querySelector('.timeline a').focus(); return document.activeElement.href.baseVal; })()"
    target = ask(browser, pages["monitor"], 1280, follow)
    assert target == "#event-1"
    assert ask(browser, pages["monitor"], 1280, f"document.querySelector('{target}').innerText").startswith("a trigger")
