"""The page that explains a run, on a store written by hand; tests/end_to_end has it on a real run."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import tensorflow_data_validation as tfdv
from ml_metadata.proto import metadata_store_pb2 as pb
from tensorflow_data_validation.statistics import stats_impl

from bike_pipeline.data import calendar_sums
from bike_pipeline.errors import MetadataError
from bike_pipeline.lineage.queries.feature_statistics import FeatureStatistics, read_statistics, shift
from bike_pipeline.lineage.queries.run_changes import explain_stages
from bike_pipeline.lineage.records.run_record import record_run, source_of_this_run
from bike_pipeline.lineage.reports.run_page import _comparison, as_page, explain, histograms
from bike_pipeline.lineage.store.metadata_store import Lineage
from bike_pipeline.modeling.evaluation import Decision
from bike_pipeline.pages import _environment
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


def write_statistics(folder: Path, batch: pa.RecordBatch) -> None:
    (folder / "Split-train").mkdir()
    proto = stats_impl.generate_statistics_in_memory(batch, tfdv.StatsOptions())
    (folder / "Split-train" / "FeatureStats.pb").write_bytes(proto.SerializeToString())


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


def parts() -> Any:
    """Return the macros that pages are put together from."""
    return _environment().get_template("parts.html").module


def test_each_stage_says_why_it_ran_or_did_not(recorder: Recorder, tmp_path: Path) -> None:
    record_two_runs(recorder, tmp_path)
    lineage = Lineage(recorder.store)
    first, second = lineage.runs()
    assert {story.why for story in explain_stages(lineage, first, None)} == {
        "the first run: there was nothing to answer it from"
    }
    trainer, evaluator = explain_stages(lineage, second, first)[1:]
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
    return explain_stages(lineage, now, before)[0].why


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
    (story,) = explain_stages(lineage, now, before)
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


def test_bars_beside_each_other_share_one_scale_and_a_worse_slice_is_marked() -> None:
    rows = [("overall", "", 40.0, 50.0), ("season", "1", 74.9, 35.15), ("season", "4", 34.0, 100.0)]
    keys = [{"slicing": slicing, "slice": value, "rows": 9.0} for slicing, value, *_ in rows]
    winter = Decision("change", "mae", "season", "1", 1.131, None, 0.1, 262, binding=False, passed=False)
    assert winter.reason == "mae against the baseline, winter: +113.1 %, at most +10 % (only 262 rows: reported)"
    found = _comparison(
        {
            "candidate_metrics": [{**key, "mae": row[2]} for key, row in zip(keys, rows, strict=True)],
            "baseline_metrics": [{**key, "mae": row[3]} for key, row in zip(keys, rows, strict=True)],
            "decisions": [asdict(winter)],
        }
    )
    assert found is not None
    page = str(parts().errors(found))
    # 40, 50; 74.9, 35.15; 34 and 100 are shares of the one largest error of all figures.
    assert re.findall(r"--share: ([\d.]+)", page) == ["0.4000", "0.5000", "0.7490", "0.3515", "0.3400", "1.0000"]
    assert re.findall(r'class="number over"><span[^>]*>([^<]+)', page) == ["+113.1 %"]
    certain = replace(winter, low=0.753, high=2.125, blocks=11, block_days=1, binding=True)
    rows = [{"slicing": "season", "slice": "1", "rows": 9.0, "mae": mae} for mae in (74.9, 35.15)]
    told = _comparison({"candidate_metrics": rows[:1], "baseline_metrics": rows[1:], "decisions": [asdict(certain)]})
    text = " ".join(re.sub(r"<[^>]*>", "", str(parts().errors(told))).split())
    assert "+113.1 % (+75.3 % to +212.5 %)" in text
    gates = str(parts().gates([{**asdict(winter), "reason": winter.reason}]))
    assert 'class="short over"><span>over its limit, reported only' in gates


def test_the_worst_slice_and_the_naive_baselines_are_named_and_older_reports_have_one() -> None:
    worst = {"worst_slice": {"reason": "mae, winter: 46 on 261 rows"}, "hourly_mean_mae": 41.8}
    page = str(parts().weakest({**worst, "naive_maes": {"hourly mean": 41.8, "seasonal naive": 44.0}}))
    assert "The worst slice of those that are judged: mae, winter: 46 on 261 rows." in page
    assert "hourly mean 41.8, seasonal naive 44.0." in page
    older = str(parts().weakest({"hourly_mean_mae": 60.0, "naive_maes": None, "worst_slice": None}))
    assert "hourly mean 60.0." in older
    assert "worst slice" not in older
    assert "<p>" not in str(parts().weakest({"hourly_mean_mae": None}))


def test_what_is_no_number_has_no_bar() -> None:
    assert "--share" not in parts().bar(None, 3.0)
    assert "not a number" in parts().bar(None, 3.0)


def test_histograms_of_nothing_are_drawn_all_the_same() -> None:
    assert histograms([], [])["filled"] == []
    assert len(histograms([(1.0, 1.0, 5.0)], [])["filled"]) == 1
    # This year's one value lies right of last year's, and inside of the picture.
    assert histograms([(1.0, 1.0, 5.0)], [(0.0, 0.0, 5.0)])["filled"] == [("176.0", "2.0", "3.0", "42.0")]


@pytest.mark.parametrize(("first", "last"), [(0, 6), (1, 4), (0, 1), (7, 7)])
def test_whole_numbers_of_a_narrow_range_have_a_bar_each(first: int, last: int, tmp_path: Path) -> None:
    values = [value for value in range(first, last + 1) for _ in range(10 + value)]
    write_statistics(tmp_path, pa.RecordBatch.from_pydict({"code": [[value] for value in values]}))
    found = read_statistics(str(tmp_path), "train")["code"].buckets
    assert [round(low + 0.5) for low, _, _ in found] == list(range(first, last + 1))
    assert [rows for *_, rows in found] == pytest.approx([10 + v for v in range(first, last + 1)], abs=2)


def test_hours_weekdays_and_months_are_counted_and_not_cut_into_ten(tmp_path: Path) -> None:
    hours = pd.date_range("2012-01-01", "2012-12-31 22:00", freq="h")
    columns = {"hr": hours.hour, "weekday": (hours.dayofweek + 1) % 7, "mnth": hours.month}
    write_statistics(tmp_path, pa.RecordBatch.from_pydict({k: [[int(v)] for v in c] for k, c in columns.items()}))
    rows = {name: [[0.5]] * len(hours) for name in calendar_sums.COLUMNS}
    rows |= {"dteday": [[str(day.date()).encode()] for day in hours], "hr": [[int(hour)] for hour in hours.hour]}
    file = Path(calendar_sums.file_of(str(tmp_path), "train"))
    file.parent.mkdir()
    file.write_bytes(calendar_sums.of_batch(pa.RecordBatch.from_pydict(rows)).to_bytes())
    found = read_statistics(str(tmp_path), "train")
    for name, values in columns.items():
        counts = pd.Series(values).value_counts().sort_index()
        assert found[name].buckets == tuple((v - 0.5, v + 0.5, rows) for v, rows in counts.items())
    assert len(found["hr"].buckets) == 24


def test_settings_are_told_where_they_differ(recorder: Recorder, tmp_path: Path) -> None:
    record_two_runs(recorder, tmp_path)
    first = load_settings(assignments=("training.epochs=3",))
    record_run(recorder.store, source_of_this_run(first, "first", "local"))
    second = load_settings(assignments=("training.epochs=5", "seed=7"))
    record_run(recorder.store, source_of_this_run(second, "second", "local"))
    explanation = explain(Lineage(recorder.store), None, str(tmp_path))
    shipped = load_settings()
    assert [(c.name, c.value, c.default, c.before) for c in explanation.report.settings] == [
        ("seed", "7", str(shipped.seed), str(shipped.seed)),
        ("training.epochs", "5", str(shipped.training.epochs), "3"),
    ]
    assert "training.epochs 5" in Page(as_page(explanation)).text
    same = explain(Lineage(recorder.store), "first", str(tmp_path)).report.settings
    assert [(c.name, c.before) for c in same] == [("training.epochs", None)]


def test_the_shift_is_in_standard_deviations_of_before() -> None:
    def column(mean: float, std: float) -> FeatureStatistics:
        values: dict[str, Any] = {"rows": 1, "missing": 0, "low": 0.0, "median": 0.0, "high": 1.0, "buckets": ()}
        return FeatureStatistics(mean=mean, std=std, **values)

    assert shift(column(0.7, 9.0), column(0.5, 0.1)) == pytest.approx(2.0)
    assert shift(column(0.7, 0.1), column(0.7, 0.0)) is None
