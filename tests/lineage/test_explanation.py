"""The page that explains a run, on a store written by hand; tests/end_to_end has it on a real run."""

from __future__ import annotations

import math
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from ml_metadata.proto import metadata_store_pb2 as pb

from bike_pipeline.errors import MetadataError
from bike_pipeline.lineage.queries.feature_statistics import FeatureStatistics, shift
from bike_pipeline.lineage.queries.run_changes import stage_stories
from bike_pipeline.lineage.records.run_record import record_run, source_of_this_run
from bike_pipeline.lineage.reports.charts import paired_bars, two_histograms
from bike_pipeline.lineage.reports.explanation import as_page, explain
from bike_pipeline.lineage.store.metadata_store import Lineage
from bike_pipeline.settings import load_settings
from tests.recording import Recorder


class Page(HTMLParser):
    """What a person reads of a page, and every address that it would load."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.loads: list[str] = []
        self.shapes: dict[str, int] = {}
        self._hidden = False
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden = tag in ("style", "script", "title")
        self.shapes[tag] = self.shapes.get(tag, 0) + 1
        self.loads += [str(value) for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.words.append(" ".join(data.split()))

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False

    @property
    def text(self) -> str:
        return " ".join(filter(None, self.words))


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    """An empty store."""
    return Recorder(tmp_path / "metadata.sqlite")


def record_two_runs(recorder: Recorder, tmp_path: Path) -> None:
    """Record a run, and one with other thresholds, whose trainer comes from the cache and whose evaluation fails."""
    examples = recorder.artifact("Examples", str(tmp_path / "root/CsvExampleGen/examples/1"), span=1, version=1)
    model = recorder.artifact("Model", str(tmp_path / "root/Trainer/model/2"))
    recorder.execution("CsvExampleGen", "first", outputs={"examples": examples})
    recorder.execution("Trainer", "first", {"examples": examples}, {"model": model})
    recorder.execution("Evaluator", "first", {"model": model}, evaluation="a")
    cached = pb.Execution.CACHED
    recorder.execution("CsvExampleGen", "second", outputs={"examples": examples}, state=cached)
    recorder.execution("Trainer", "second", {"examples": examples}, {"model": model}, state=cached)
    failed = pb.Execution.FAILED
    recorder.execution("Evaluator", "second", {"model": model}, evaluation="b", error="<no> metrics", state=failed)


def test_each_stage_says_why_it_ran_or_did_not(recorder: Recorder, tmp_path: Path) -> None:
    record_two_runs(recorder, tmp_path)
    lineage = Lineage(recorder.store)
    first, second = lineage.runs()
    assert {story.why for story in stage_stories(lineage, first, None)} == {
        "the first run: there was nothing to answer it from"
    }
    trainer, evaluator = stage_stories(lineage, second, first)[1:]
    assert trainer.why == "the same code, settings and inputs as in run first"
    assert evaluator.why == "changed since the run before: the evaluation's thresholds"
    assert evaluator.error == "<no> metrics"


def why_of_a_push(recorder: Recorder, first: dict[str, int], third: dict[str, int]) -> str:
    """Run, run again with all from the cache, and run with another model; return why the last one pushed."""
    pushed = [recorder.artifact("PushedModel", pushed=1) for _ in range(2)]
    models = [recorder.artifact("Model") for _ in range(2)]
    recorder.execution("Pusher", "a", {"model": models[0]}, {"pushed_model": pushed[0]}, source_hash="s", **first)
    cached = pb.Execution.CACHED
    recorder.execution("Pusher", "b", {"model": models[0]}, {"pushed_model": pushed[0]}, cached, source_hash="s")
    recorder.execution("Pusher", "c", {"model": models[1]}, {"pushed_model": pushed[1]}, source_hash="s", **third)
    lineage = Lineage(recorder.store)
    _, before, now = lineage.runs()
    return stage_stories(lineage, now, before)[0].why


@pytest.mark.parametrize(
    ("first", "third", "told"),
    [
        ({"lost_pushes": 0}, {"lost_pushes": 0}, "changed since the run before: the model"),
        ({}, {"lost_pushes": 0}, "changed since the run before: the model"),
        ({"lost_pushes": 0}, {}, "changed since the run before: the model"),
        (
            {"lost_pushes": 0},
            {"lost_pushes": 1},
            "changed since the run before: files of an earlier push are gone or changed, the model",
        ),
        (
            {"lost_pushes": 1},
            {"lost_pushes": 0},
            "changed since the run before: files of an earlier push are there again, the model",
        ),
    ],
    ids=["none lost", "not counted before", "not counted now", "one lost", "there again"],
)
def test_lost_files_are_told_where_some_were_lost_and_nowhere_else(
    recorder: Recorder, first: dict[str, int], third: dict[str, int], told: str
) -> None:
    assert why_of_a_push(recorder, first, third) == told


def test_what_is_not_on_record_is_not_said_to_have_changed(recorder: Recorder) -> None:
    examples = recorder.artifact("Examples", span=1, version=1)
    for run, given in (("a", {}), ("b", {"gate": "strict"})):
        outputs = {"report": recorder.artifact("bike.DataGateReport")}
        recorder.execution("DataGate", run, {"examples": examples}, outputs, source_hash="s", **given)
    lineage = Lineage(recorder.store)
    before, now = lineage.runs()
    (story,) = stage_stories(lineage, now, before)
    assert story.why == "what changed is not known: not all of the run before is on record"


def test_a_failed_run_is_explained_too_and_nothing_is_loaded(recorder: Recorder, tmp_path: Path) -> None:
    record_two_runs(recorder, tmp_path)
    page = Page(as_page(explain(Lineage(recorder.store), None, str(tmp_path / "spans"))))
    assert page.text.startswith("Run second")
    assert "Evaluator: <no> metrics" in page.text
    assert "No model was evaluated in this run." in page.text
    assert "The statistics of this run are not there." in page.text
    assert not page.loads
    assert "script" not in page.shapes


def test_what_called_a_run_is_why_it_ran(recorder: Recorder, tmp_path: Path) -> None:
    record_two_runs(recorder, tmp_path)
    source = source_of_this_run(load_settings(), "second", "local")
    record_run(recorder.store, replace(source, command="bike-pipeline run --demo second"))
    told = explain(Lineage(recorder.store), "second", str(tmp_path))
    assert "the second half of the embedded data, 2012, arrived: “bike-pipeline run --demo second”" in as_page(told)
    assert ("called by", "bike-pipeline run --demo second") in told.report.facts
    unnamed = explain(Lineage(recorder.store), "first", str(tmp_path))
    assert "which the records do not name" in unnamed.trigger


def test_an_unknown_run(recorder: Recorder, tmp_path: Path) -> None:
    with pytest.raises(MetadataError, match="there is no run yet"):
        explain(Lineage(recorder.store), None, str(tmp_path))
    record_two_runs(recorder, tmp_path)
    with pytest.raises(MetadataError, match="there is no run 'third'"):
        explain(Lineage(recorder.store), "third", str(tmp_path))


def test_bars_are_as_long_as_their_values() -> None:
    chart = paired_bars([("a < b", 10.0, 40.0), ("c", 20.0, None)], "errors")
    assert "a &lt; b" in chart
    widths = [float(part.split('"')[0]) for part in chart.split('width="')[2:]]
    assert widths == [75.0, 300.0, 150.0]


def test_histograms_of_nothing_are_drawn_all_the_same() -> None:
    assert two_histograms([], [], "empty").endswith("</svg>")
    assert two_histograms([(1.0, 1.0, 5.0)], [], "constant").count("<rect") == 1
    # This year's one value lies right of last year's, and inside of the picture.
    assert 'x="176.0" y="2.0" width="3.0"' in two_histograms([(1.0, 1.0, 5.0)], [(0.0, 0.0, 5.0)], "another value")


def test_the_shift_is_in_standard_deviations_of_before() -> None:
    def column(mean: float, std: float) -> FeatureStatistics:
        values: dict[str, Any] = {"rows": 1, "missing": 0, "low": 0.0, "median": 0.0, "high": 1.0, "buckets": ()}
        return FeatureStatistics(name="temp", mean=mean, std=std, **values)

    assert shift(column(0.7, 9.0), column(0.5, 0.1)) == pytest.approx(2.0)
    assert math.isnan(shift(column(0.7, 0.1), column(0.7, 0.0)))
