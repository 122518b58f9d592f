"""The model of 2011 asked for the hours of 2012: what the monitor says of it."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bike_pipeline.errors import ExitCode
from bike_pipeline.model_registry import ModelRegistry
from bike_pipeline.monitoring.observations import ObservationStore
from tests.end_to_end.conftest import Called, Halves, Product

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def product(run_halves: Halves, tmp_path_factory: pytest.TempPathFactory) -> Product:
    return Product(run_halves.copied(1, tmp_path_factory.mktemp("monitor") / "workspace"))


@pytest.fixture(scope="module")
def calls(product: Product) -> dict[str, Called]:
    """What a person calls, in this order."""
    return {
        "nothing yet": product.call("monitor", "status"),
        "no requests": product.call("monitor", "run"),
        "demo": product.call("monitor", "demo"),
        "autumn": product.call("monitor", "run", "--window", "14d", "--until", "2012-10-01", "--json"),
        "again": product.call("monitor", "run", "--window", "14d", "--until", "2012-10-01", "--json"),
        "status": product.call("monitor", "status", "--json"),
        "terminal": product.call("monitor", "status"),
        "lineage": product.call("lineage", "--format", "json"),
    }


def verdicts_of(called: Called, *statuses: str) -> dict[str, Any]:
    report = called.result.get("report", called.result)
    return {v["meta"]["subject"]: v for v in report["verdicts"] if v["data"]["status"] in statuses}


def test_before_the_first_look_there_is_no_status(calls: dict[str, Called]) -> None:
    assert calls["nothing yet"].code == ExitCode.MONITORING
    assert "the monitor has not looked yet" in calls["nothing yet"].err


def test_without_requests_nothing_is_judged_and_that_is_no_success(calls: dict[str, Called]) -> None:
    assert calls["no requests"].code == ExitCode.NOT_JUDGED
    assert (
        "nothing could be judged. What is missing: no answered request asks about the windows up to "
        in calls["no requests"].err
    )


def test_every_hour_of_2012_was_asked_for_and_has_its_label(calls: dict[str, Called]) -> None:
    assert calls["demo"].code == 0, calls["demo"].err
    assert "8,734 hours of 2012 asked for" in calls["demo"].out
    assert "hours asked about: 8,734 known" in calls["demo"].out


def test_the_shift_of_the_level_is_found_with_its_harm(calls: dict[str, Called]) -> None:
    assert calls["autumn"].code == ExitCode.CHANGED
    reported = calls["autumn"].result.get("report", calls["autumn"].result)["verdicts"]
    changed = {v["meta"]["detector"]: v["data"] for v in reported if v["data"]["status"] == "changed"}
    assert changed["cusum"]["effect"] > 0.05
    assert calls["autumn"].result["headline"].startswith("Changed: answers")
    assert changed["cusum"]["harm"]["low"] > 500


def test_the_parts_of_the_change_add_up_to_it(calls: dict[str, Called]) -> None:
    attribution = calls["autumn"].result["report"]["attribution"]
    assert sum(part["rentals_a_day"] for part in attribution["parts"]) == pytest.approx(
        attribution["observed"] - attribution["reference"], abs=1e-6
    )


def test_it_is_the_level_and_feedback_helps(calls: dict[str, Called]) -> None:
    report = calls["autumn"].result["report"]
    assert report["attribution"]["cause"] == "level moved"
    assert report["remedies"][0]["remedy"] == "feedback"
    assert report["remedies"][0]["gain"]["low"] > 0


def test_the_time_line_holds_every_day_and_what_happened(calls: dict[str, Called]) -> None:
    report = calls["autumn"].result["report"]
    assert len(report["days"]) == 274
    assert {day["known"] == day["rows"] for day in report["days"]} == {True}
    assert [event["kind"] for event in report["events"]] == ["trigger", "promotion"]


def test_looking_again_says_the_same(calls: dict[str, Called]) -> None:
    first, second = (dict(calls[name].result["report"]) for name in ("autumn", "again"))
    for one in (first, second):
        del one["at"], one["log"]
    assert first == second


def test_status_is_what_was_found_last(calls: dict[str, Called]) -> None:
    assert calls["status"].code == calls["terminal"].code == 0
    assert calls["status"].result["verdicts"] == calls["again"].result["report"]["verdicts"]
    assert calls["terminal"].out.startswith("Changed: answers")


def test_the_page_and_the_record_are_there(calls: dict[str, Called], product: Product) -> None:
    page = Path(calls["autumn"].result["page"])
    assert page == product.workspace / "reports" / "monitor.html"
    assert calls["autumn"].result["headline"] in page.read_text(encoding="utf-8")
    records = sorted((product.workspace / "monitoring" / "reports").glob("*.json"))
    assert len(records) == 3
    assert json.loads(records[-1].read_text())["report"]["status"] == "changed"


def test_lineage_tells_of_the_newest_look_at_the_model_that_serves(calls: dict[str, Called]) -> None:
    told = dict(calls["lineage"].result["facts"])["monitor"]
    report = Path(calls["again"].result["file"])
    assert told.startswith("3 looks, the newest at 2012-09-17 00:00 to 2012-09-30 23:00: Changed: answers")
    assert told.endswith(f"report sha256 {hashlib.sha256(report.read_bytes()).hexdigest()}")


@pytest.fixture(scope="module")
def request_of(calls: dict[str, Called], product: Product) -> tuple[str, str]:
    """A request of the demo, and which row of it is 8:00 on 1 June."""
    assert calls["demo"].code == 0
    found = ObservationStore(product.workspace / "monitoring" / "observations").columns()
    place = ((found["mnth"] == 6) & (found["day"] == 1) & (found["hr"] == 8)).nonzero()[0][0]
    return str(found["request_id"][place]), str(found["row"][place])


@pytest.fixture(scope="module")
def explained(request_of: tuple[str, str], product: Product) -> dict[str, Called]:
    name, row = request_of
    page = str(product.workspace / "why.html")
    return {
        "first": product.call("explain", name, "--row", row, "--json"),
        "again": product.call("explain", name, "--row", row, "--json", "--html", page),
        "terminal": product.call("explain", name, "--row", row),
        "no such row": product.call("explain", name, "--row", "100"),
        "no such request": product.call("explain", "never"),
        "model": product.call("explain", "--json", "--html", str(product.workspace / "model.html")),
    }


def test_an_answer_is_explained_by_parts_that_add_up_and_is_the_same_again(explained: dict[str, Called]) -> None:
    first, again = (explained[name].result for name in ("first", "again"))
    why = first["explanation"]["why"]
    assert sum((part["value"] for part in why["parts"]), why["base"]) == why["answer"]
    assert why["parts"][0]["words"] == "8:00 on Friday, a working day"
    assert (first["is_new"], again["is_new"]) == (True, False)
    assert again["explanation"] == first["explanation"]


def test_an_auditor_finds_the_explanation_by_the_id(
    explained: dict[str, Called], request_of: tuple[str, str], product: Product
) -> None:
    table = explained["first"].result["table"]
    with closing(sqlite3.connect(table)) as database:
        asked = "SELECT version, model_id, fingerprint, answer FROM explanation WHERE request_id = ? AND row = ?"
        ((version, model_id, fingerprint, answer),) = database.execute(asked, request_of)
    record = ModelRegistry(str(product.workspace / "serving" / "bike_demand")).push_record(version)
    assert record is not None
    assert (model_id, fingerprint) == (record["model_id"], record["fingerprint"])
    assert answer == explained["first"].result["explanation"]["why"]["answer"]


def test_a_person_reads_why_and_gets_a_page(explained: dict[str, Called], product: Product) -> None:
    assert "8:00 on Friday, a working day: +" in explained["terminal"].out
    assert "5 °C warmer" in explained["terminal"].out
    assert "explained before: read from" in explained["terminal"].out
    assert "8:00 on Friday, a working day" in (product.workspace / "why.html").read_text(encoding="utf-8")


def test_what_is_not_on_record_is_told(explained: dict[str, Called]) -> None:
    assert explained["no such row"].code == explained["no such request"].code == ExitCode.MONITORING
    assert "has no row 100 on record" in explained["no such row"].err
    assert "no answered request has the id never" in explained["no such request"].err


def test_the_model_is_explained_by_hours_inputs_and_slices(explained: dict[str, Called], product: Product) -> None:
    found = explained["model"].result
    working, other = found["curves"]
    assert working["mean"][8] > 2 * other["mean"][8]
    assert found["importance"]["inputs"][0]["name"] == "hr"
    assert found["slices"]
    assert found["slices"][0]["mae"] > found["slices"][0]["mae_elsewhere"]
    assert "<svg" in (product.workspace / "model.html").read_text(encoding="utf-8")
