"""The story of the product: the first half, nothing new, the second half, a worse model, anomalous data."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests import chromium
from tests.end_to_end.conftest import Called, Product
from tests.lineage.test_run_page import Page

pytestmark = pytest.mark.slow

STAGES = [
    "CsvExampleGen",
    "ImportSchemaGen",
    "StatisticsGen",
    "ExampleValidator",
    "DataGate",
    "Transform",
    "Trainer",
    "BaselineLookup",
    "Evaluator",
    "Exporter",
    "ModelCard",
    "Pusher",
]


def test_first_half_is_blessed_without_a_baseline(story: dict[str, Any]) -> None:
    first: Called = story["first"]
    assert first.code == 0, first.err
    assert list(first.states) == STAGES
    assert set(first.states.values()) == {"done"}
    decisions = first.result["decisions"]
    assert decisions["blessed"]
    assert decisions["baseline"]["state"] == "none"
    assert "no model has been pushed yet" in decisions["baseline"]["reason"]
    assert {d["kind"] for d in decisions["decisions"]} == {"value", "reference", "coverage"}
    # The last fifth of a year has neither spring nor summer: that is said, and let pass.
    unjudged = {(d["slicing"], d["slice"]): d for d in decisions["decisions"] if d["kind"] == "coverage"}
    assert {("season", "2"), ("season", "3"), ("weathersit", "4")} <= set(unjudged)
    assert not any(d["binding"] for d in unjudged.values())
    assert first.result["newly_pushed"]


def test_model_beats_the_mean_by_hour_and_working_day(story: dict[str, Any]) -> None:
    for chapter in ("first", "second"):
        report = story[chapter].result["decisions"]
        overall = next(row for row in report["candidate_metrics"] if row["slicing"] == "overall")
        assert overall["mae"] <= 0.8 * report["hourly_mean_mae"]


@pytest.mark.parametrize("chapter", ["again", "second again"])
def test_nothing_runs_again_when_nothing_changed(story: dict[str, Any], chapter: str) -> None:
    again: Called = story[chapter]
    assert again.code == 0, again.err
    assert set(again.states.values()) == {"cached"}
    assert not again.result["newly_pushed"]
    before = story["first" if chapter == "again" else "second"].result
    assert again.result["pushed_version"] == before["pushed_version"]


def test_finding_out_that_nothing_changed_imports_nothing_heavy(story: dict[str, Any]) -> None:
    assert story["imported"] == ""


def test_second_half_is_held_against_the_first_model(story: dict[str, Any]) -> None:
    second: Called = story["second"]
    assert second.code == 0, second.err
    first_version = story["first"].result["pushed_version"]
    decisions = second.result["decisions"]
    assert decisions["baseline"] == {
        "state": "found",
        "reason": f"version {first_version} is serving",
        "serving_version": first_version,
    }
    changes = [d for d in decisions["decisions"] if d["kind"] == "change"]
    assert {d["slicing"] for d in changes} == {"overall", "hour_band", "workingday", "season", "weathersit"}
    assert all(d["passed"] for d in changes if d["binding"])
    # The days around Christmas were once there in training, so that winter is no worse than the first model's.
    assert decisions["warnings"] == []
    assert second.states["ImportSchemaGen"] == "cached"
    assert {state for name, state in second.states.items() if name != "ImportSchemaGen"} == {"done"}
    assert second.result["pushed_version"] > first_version


def test_both_models_saw_the_same_rows(story: dict[str, Any]) -> None:
    report = story["second"].result["decisions"]
    rows = {(r["slicing"], r["slice"]): r["rows"] for r in report["candidate_metrics"]}
    for row in report["baseline_metrics"]:
        assert rows[row["slicing"], row["slice"]] == row["rows"]


def test_what_came_out_is_tracked_once_and_a_server_that_is_down_is_one_line(story: dict[str, Any]) -> None:
    pushed = story["second"].result["pushed_version"]
    told = story["second"].result["tracking"]
    assert re.fullmatch(
        rf"tracked in MLflow as run (\w+); registered: version {pushed}; serving: version {pushed}", told
    )
    again = story["second again"].result["tracking"]
    assert again == told.replace(f"; registered: version {pushed}", "").replace("; ", " (was there already); ")
    assert story["first"].result["tracking"] == ""
    worse = story["worse"].result
    assert worse["tracking"].startswith("warning: not tracked: http://127.0.0.1:1: MLflow cannot be reached")
    assert worse["tracking"].removeprefix("warning: not ") in Path(worse["log"]).read_text(encoding="utf-8").replace(
        "tracking:", "tracked:"
    )


def test_every_training_left_events_for_tensorboard(story: dict[str, Any]) -> None:
    runs = list((story["product"].workspace / "artifacts" / "Trainer" / "model_run").iterdir())
    assert len(runs) >= 2
    assert all(list(run.rglob("events.out.tfevents.*")) for run in runs)


def test_a_worse_model_is_not_pushed(story: dict[str, Any]) -> None:
    worse: Called = story["worse"]
    assert worse.code == 6
    assert worse.result["pushed_version"] is None
    assert not worse.result["decisions"]["blessed"]
    assert worse.states["Transform"] == "cached"
    assert worse.states["Trainer"] == "done"
    assert "not blessed" in worse.err
    assert len(worse.err.strip().splitlines()) == 1
    expected = sorted(str(story[chapter].result["pushed_version"]) for chapter in ("first", "second"))
    assert story["versions"] == expected


def test_one_bad_slice_withdraws_the_blessing(story: dict[str, Any]) -> None:
    refused: Called = story["slice"]
    assert refused.code == 6
    decisions = refused.result["decisions"]
    assert decisions["blessed_by_tfma"]
    assert not decisions["blessed"]
    failed = [d for d in decisions["decisions"] if d["binding"] and not d["passed"]]
    assert failed
    assert {d["slicing"] for d in failed} == {"hour_band"}
    assert refused.states["Trainer"] == "cached"
    assert refused.states["Evaluator"] == "done"


def test_anomalous_data_stops_at_the_gate(story: dict[str, Any]) -> None:
    assert story["ingest anomalous"].code == 0, story["ingest anomalous"].err
    stopped: Called = story["anomalous"]
    assert stopped.code == 5
    answer = stopped.result
    assert "DataGate: span 3 is refused: 'temp' in drift" in answer["error"]
    assert len(stopped.err.strip().splitlines()) == 1
    report = json.loads(Path(answer["error"].rpartition("report: ")[2].rstrip(".")).read_text(encoding="utf-8"))
    assert not report["passed"]
    assert any(f["feature"] == "temp" and f["severity"] == "error" for f in report["findings"])


def test_metadata_counts_runs_and_cache_hits(story: dict[str, Any]) -> None:
    runs = json.loads(story["runs"].out)
    counted = [
        (sum(stage["state"] == "done" for stage in run["stages"]), sum(s["state"] == "cached" for s in run["stages"]))
        for run in runs
    ]
    assert counted[:4] == [(12, 0), (0, 12), (11, 1), (0, 12)]
    assert runs[4]["outcome"] == runs[5]["outcome"] == "not blessed"
    assert runs[6]["state"] == "failed"
    assert runs[6]["outcome"].startswith("DataGate: ")
    assert [stage["name"] for stage in runs[6]["stages"]][-1] == "DataGate"
    assert [run["span"] for run in runs] == [1, 1, 2, 2, 2, 2, 3]


def test_models_are_listed_with_their_verdicts(story: dict[str, Any]) -> None:
    models = json.loads(story["models"].out)
    assert [(model["span"], model["blessed"], model["serving"]) for model in models] == [
        (1, True, False),
        (2, True, True),
        (2, False, False),
    ]
    assert [model["served_version"] for model in models] == [
        story["first"].result["pushed_version"],
        story["second"].result["pushed_version"],
        None,
    ]


def test_served_model_answers(story: dict[str, Any], halves: tuple[Path, Path]) -> None:
    product: Product = story["product"]
    record = (
        '{"dteday": "2012-06-01", "hr": 17, "holiday": 0, "weathersit": 1, '
        '"temp": 0.6, "atemp": 0.58, "hum": 0.5, "windspeed": 0.2}'
    )
    one = product.call("predict", record)
    assert one.code == 0, one.err
    assert 300 < float(one.out) < 1000
    night = product.call("predict", record.replace('"hr": 17', '"hr": 3'))
    assert float(night.out) < 50
    lines = halves[1].read_text(encoding="utf-8").splitlines(keepends=True)[:50]
    answered = product.call("predict", "-", text="".join(lines)).out.splitlines()
    assert len(answered) == 50
    assert answered[0] == lines[0].strip() + ",predicted_cnt"
    file = product.workspace / "fifty.csv"
    file.write_text("".join(lines), encoding="utf-8")
    assert product.call("predict", str(file)).out.splitlines() == answered
    piped = product.call("predict", "-", text=record)
    assert piped.out == one.out
    around = json.loads(product.call("predict", "--intervals", record).out)
    assert around["predicted_cnt"] == float(one.out)
    assert 0 < around["p05"] < around["p10"] < around["p50"] < around["p90"] < around["p95"] < 2000
    table = product.call("predict", "--intervals", "-", text="".join(lines)).out.splitlines()
    assert table[0] == answered[0] + ",p05,p10,p50,p90,p95"
    assert [line.rsplit(",", 5)[0] for line in table[1:]] == answered[1:]
    before = product.workspace / "before.json"
    row = {**json.loads(record), "hr": 16, "cnt": 900}
    before.write_text(json.dumps(row), encoding="utf-8")
    moved = json.loads(product.call("predict", "--intervals", "--last-day", str(before), record).out)
    # By what the model expected of that hour, and with an interval that moved with the answer.
    factor = (910 / (float(product.call("predict", json.dumps(row)).out) + 10)) ** 0.7
    assert moved["predicted_cnt"] == pytest.approx(factor * around["predicted_cnt"], rel=1e-4)
    assert moved["p95"] / moved["predicted_cnt"] == pytest.approx(
        1 + 0.9 * (around["p95"] / around["predicted_cnt"] - 1), rel=1e-3
    )


READ = (
    "pushed as version",
    "The gates, and their reasons",
    "hours 16-19",
    "autumn",
    "mist",
    "From the rows to the model",
)


def test_a_page_explains_the_second_run_to_a_person(story: dict[str, Any]) -> None:
    called: Called = story["page"]
    assert called.code == 0, called.err
    page = Page(Path(called.out.strip()).read_text(encoding="utf-8"))
    for words in READ:
        assert words in page.text
    assert "the second half of the embedded data, 2012, arrived: “bike-pipeline run --demo second" in page.text
    report = story["second"].result["decisions"]
    assert all(decision["reason"] in page.text for decision in report["decisions"])
    assert "changed since the run before: the examples (now span 2 version 1)" in page.text
    assert "the same code, settings and inputs as in run" in page.text
    assert "The model may go to devices: TFMA and all of " in page.text
    # One picture for each column of the contract that is a number, and the graph.
    assert page.shapes["svg"] == 15 + 1
    assert page.shapes["figure"] == 4
    assert not page.loads


def test_a_browser_shows_that_page(story: dict[str, Any], tmp_path: Path) -> None:
    program, environment = chromium.found()
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", f"--user-data-dir={tmp_path}", "--dump-dom"]  # fmt: skip
    done = subprocess.run(
        [program, *quiet, Path(story["page"].out.strip()).as_uri()],
        capture_output=True, text=True, timeout=120, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown = Page(done.stdout)
    for words in READ:
        assert words in shown.text
