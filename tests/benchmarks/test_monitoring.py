"""The monitoring benchmark in small: one look a week, three faults, no peers; and that its verdict can fail."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest

from benchmarks import monitoring_detectors, plots
from benchmarks.monitoring import ours, traffic
from benchmarks.monitoring.traffic import Ground
from benchmarks.monitoring_detectors import Result
from benchmarks.quality.protocols import read
from bike_pipeline.data.embedded_dataset import embedded_bytes
from bike_pipeline.settings import load_settings

SETTINGS = load_settings().monitoring


@pytest.fixture(scope="module")
def ground() -> Ground:
    training = load_settings(assignments=("training.architecture=trees",)).training
    return traffic.ground(read(embedded_bytes()), training.model_dump(mode="json"), training.feedback, 7)


@pytest.fixture(scope="module")
def clean(ground: Ground) -> traffic.Columns:
    return traffic.requests(ground.rows, ground.fed, 7)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["°F for °C", "sensor stuck", "new category", "missing column", "feed sent twice"])
def test_a_fault_on_a_tenth_of_rows_is_told_within_a_day(ground: Ground, clean, fault: str) -> None:
    start = traffic.SECOND_YEAR + 131 * 24 + 17
    broken = traffic.episode(clean, fault, 0.1, start, 96, 48, 3)
    delay, detector = ours.delay(broken, ground.reference, SETTINGS, 48)
    assert delay is not None
    assert delay <= monitoring_detectors.LARGEST_DELAY
    assert detector


@pytest.mark.slow
def test_a_sound_day_has_no_fault_and_a_stale_level_is_told_in_january(ground: Ground, clean) -> None:
    start = traffic.SECOND_YEAR + 131 * 24 + 17
    sound = traffic.episode(clean, "new category", 0.0, start, 96, 48, 3)
    assert ours.delay(sound, ground.reference, SETTINGS, 48) == (None, "")
    stale = traffic.requests(ground.rows, ground.stale, 7)
    january = {name: values[stale["hour"] < traffic.SECOND_YEAR + 42 * 24] for name, values in stale.items()}
    told = [one for one in ours.year(january, ground.reference, SETTINGS, 42) if one.kind == "concept drift"]
    assert told
    assert monitoring_detectors.day_of(min(told).at) <= 35


@pytest.mark.parametrize("fault", traffic.FAULTS)
def test_a_fault_breaks_the_share_of_rows_that_it_says_and_no_others(fault: str) -> None:
    count = 4000
    names = (*traffic.NAMES, "label")
    rows = {name: np.full(count, 0.5, np.float64) for name in names}
    rows |= {"hour": np.arange(count) // 4, "hr": np.arange(count) // 4 % 24}
    rows["temp"] = 0.3 + np.arange(count) / count / 4
    broken = traffic.episode(rows, fault, 0.1, 500, 500, 500, 3).rows
    before, after = (np.flatnonzero(broken["hour"] < 499), np.flatnonzero(broken["hour"] > 501))
    changed = {name: values for name, values in broken.items() if len(values) != count or (values != rows[name]).any()}
    assert changed
    for name, values in changed.items():
        assert (values[before] == rows[name][before]).all()
    if fault == "feed sent twice":
        assert len(broken["hour"]) == pytest.approx(count * 1.05, rel=0.02)
        return
    name = "hour" if fault == "clock an hour off" else next(iter(changed))
    assert (broken[name] != rows[name])[after].mean() == pytest.approx(0.1, abs=0.03)


def test_pages_are_grouped_by_kind_until_a_week_is_quiet() -> None:
    told = [ours.Told(datetime(2012, 1, day), kind, "d", "s", "") for day in (1, 2, 8, 20) for kind in ("a", "b")]
    assert [(one.at.day, one.kind) for one in ours.pages(told)] == [(1, "a"), (1, "b"), (20, "a"), (20, "b")]


def test_what_happened_is_no_false_page_and_anything_else_is() -> None:
    assert monitoring_detectors.happened("data drift", "atemp", datetime(2012, 3, 25))
    assert not monitoring_detectors.happened("data drift", "windspeed", datetime(2012, 3, 25))
    assert not monitoring_detectors.happened("data drift", "temp", datetime(2012, 6, 25))
    assert not monitoring_detectors.happened("concept drift", "answers", datetime(2012, 3, 25))


def reached() -> Result:
    delays = {fault: {f"{share:g}": [6.0] for share in monitoring_detectors.SHARES} for fault in traffic.FAULTS}
    return Result(level_day=27, delays=delays)


def test_goals_are_missed_by_what_is_late_false_or_not_measured() -> None:
    assert monitoring_detectors.missed(reached()) == []
    assert len(monitoring_detectors.missed(Result())) == 1 + len(traffic.FAULTS)
    late, false, blind = reached(), reached(), reached()
    late.level_day = 29
    false.false_pages = ["one", "two"]
    blind.delays["sensor stuck"]["0.1"] = [6.0, None]
    assert [len(monitoring_detectors.missed(one)) for one in (late, false, blind)] == [1, 1, 1]


def test_table_and_picture_show_every_contestant(tmp_path) -> None:
    results = {"bike_pipeline": reached(), "a peer": reached()}
    table = monitoring_detectors.table_of(results)
    assert "| sensor stuck | 10% | 1 of 1, 6 h, at most 6 h | 1 of 1, 6 h, at most 6 h |" in table
    plots.draw_monitoring({name: one.delays for name, one in results.items()}, tmp_path / "monitoring.png")
    assert (tmp_path / "monitoring.png").stat().st_size > 1000
