"""The benchmark's splits, columns, scores and verdicts; the served model and its picture on few rows for real."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from benchmarks import model_quality, plots
from benchmarks.quality import columns, served
from benchmarks.quality.protocols import FORWARD, Split, Table, inner_splits, read, splits
from benchmarks.quality.scores import Scores, Verdict, scores, verdicts
from bike_pipeline import features
from bike_pipeline.data.embedded_dataset import embedded_bytes
from bike_pipeline.settings import load_settings

EVERY = model_quality.PROTOCOLS


@pytest.fixture(scope="module")
def table() -> Table:
    return read(embedded_bytes())


@pytest.mark.parametrize(
    ("protocol", "train", "test"),
    [("P1", 8645, 8734), ("P2", 13903, 3476), ("P3", 10886, 6493), ("P4", 13903, 3476)],
)
def test_a_protocol_trains_and_tests_on_the_rows_of_its_definition(
    table: Table, protocol: str, train: int, test: int
) -> None:
    (split,) = splits(table, protocol)
    assert (len(split.train), len(split.test)) == (train, test)
    assert sorted([*split.train, *split.test]) == list(range(17_379))


def test_the_random_protocol_is_that_of_scikit_learn(table: Table) -> None:
    (split,) = splits(table, "P4")
    train, test = train_test_split(np.arange(17_379), test_size=0.2, random_state=42)
    assert set(split.train) == set(train)
    assert set(split.test) == set(test)


def test_rolling_months_train_on_everything_before_the_month(table: Table) -> None:
    parts = splits(table, "P5")
    assert len(parts) == 12
    for number, split in enumerate(parts, 1):
        assert set(table["mnth"][split.test]) == {number}
        assert set(table["yr"][split.test]) == {1}
        assert split.train.max() + 1 == split.test.min()


@pytest.mark.parametrize("protocol", EVERY)
def test_a_choice_sees_no_row_that_is_tested(table: Table, protocol: str) -> None:
    split = splits(table, protocol)[0]
    inner = inner_splits(table, protocol, split.train)
    assert len(inner) == 2
    for one in inner:
        assert set(one.train) | set(one.test) <= set(split.train)
        assert not set(one.train) & set(one.test)
        assert len(one.test) > 500
        if protocol in FORWARD:
            assert one.train.max() < one.test.min()


def test_columns_are_known_when_the_hour_begins(table: Table) -> None:
    made = columns.enriched(table)
    assert not set(made) & {features.LABEL, *features.LEAKS, "instant"}
    later = 9_000
    changed = {name: values.copy() for name, values in table.items()}
    for name in ("weathersit", "temp", "atemp", "hum", "windspeed", "cnt", "casual", "registered"):
        changed[name][later:] = changed[name][later:][::-1]
    for name, values in columns.enriched(changed).items():
        assert np.array_equal(values[:later], made[name][:later]), name
    without_labels = columns.enriched({**table, **{n: table[n] * 0 for n in (features.LABEL, *features.LEAKS)}})
    assert all(np.array_equal(without_labels[name], values) for name, values in made.items())


def test_weather_of_the_past_goes_by_hours_and_not_by_rows(table: Table) -> None:
    # On 2011-01-02 the hour 5 is absent: row 28 is 04:00, row 29 is 06:00.
    assert [table["hr"][28], table["hr"][29]] == [4, 6]
    made = columns.enriched(table)
    assert made["weather_past_1"][29] == table["weathersit"][29]
    assert made["temp_past_3"][29] == pytest.approx(np.mean(table["temp"][27:29]))
    assert made["temp_past_24"][0] == table["temp"][0]


def test_growth_is_learnt_from_the_training_rows_alone_and_ends_with_them(table: Table) -> None:
    made = columns.enriched(table)
    train = np.arange(8_000)
    level = columns.growth(table, made, train)
    changed = {**table, "cnt": np.where(np.arange(17_379) < 8_000, table["cnt"], 7.0)}
    assert np.array_equal(columns.growth(changed, made, train), level)
    assert level[8_000:].tolist() == [1.0] * (17_379 - 8_000)
    doubled = {**table, "cnt": table["cnt"] * np.exp(table["dteday"] / 365.25)}
    steeper = columns.growth(doubled, made, train)
    assert np.log(steeper[0] / level[0]) == pytest.approx(-table["dteday"][7_999] / 365.25, rel=0.1)


def test_scores_are_those_of_their_formulas() -> None:
    found = scores(np.array([1.0, 3.0, 8.0]), np.array([2.0, 3.0, 5.0]))
    assert found.rmse == pytest.approx(math.sqrt(10 / 3))
    assert found.mae == pytest.approx(4 / 3)
    logs = [math.log(3 / 2), 0.0, math.log(6 / 9)]
    assert found.rmsle == pytest.approx(math.sqrt(sum(x * x for x in logs) / 3))
    assert found.r2 == pytest.approx(1 - 10 / 26)
    assert found.bias == pytest.approx(-2 / 12)


GOOD = Scores(60.0, 40.0, 0.34, 0.9, 0.0)


@pytest.mark.parametrize(
    ("own", "peer", "words"),
    [
        (GOOD, Scores(61.0, 0, 0.35, 0, 0), ["goal reached", "goal reached"]),
        (Scores(69.0, 0, 0.356, 0, 0), Scores(69.5, 0, 0.36, 0, 0), ["reached", "reached"]),
        (Scores(69.0, 0, 0.356, 0, 0), Scores(68.5, 0, 0.36, 0, 0), ["MISSED", "reached"]),
        (Scores(71.0, 0, 0.356, 0, 0), Scores(80.0, 0, 0.36, 0, 0), ["MISSED", "reached"]),
        (Scores(math.nan, 0, math.nan, 0, 0), Scores(80.0, 0, 0.36, 0, 0), ["MISSED", "MISSED"]),
        (None, Scores(80.0, 0, 0.36, 0, 0), ["MISSED", "MISSED"]),
        (GOOD, None, ["MISSED", "MISSED"]),
    ],
)
def test_a_figure_passes_if_it_was_measured_is_good_enough_and_no_peer_is_better(
    own: Scores | None, peer: Scores | None, words: list[str]
) -> None:
    found = verdicts("P1", own, {} if peer is None else {"a tree": peer})
    assert [verdict.word for verdict in found] == words


def test_the_tables_name_every_contestant_and_verdict() -> None:
    text = model_quality.table_of("P1", {"served model": (GOOD, "its own", 7.0), "a tree": (GOOD, "raw", 1.0)})
    assert [line.split()[0] for line in text.splitlines()] == ["P1", "served", "a"]
    lines = model_quality.verdict_table([Verdict("P1 RMSE", 60.0, 70.0, 66.0, None)]).splitlines()
    assert lines[1].endswith("MISSED")
    assert "none ran" in lines[1]


def test_the_picture_is_drawn_where_a_contestant_is_absent(tmp_path: Path) -> None:
    plots.draw_quality({"P1": {"served model": 60.0, "a tree": 70.0}, "P2": {"served model": 50.0}}, tmp_path / "q.png")
    assert (tmp_path / "q.png").read_bytes()[:4] == b"\x89PNG"


@pytest.fixture(scope="module")
def training() -> dict[str, Any]:
    return {**load_settings().training.model_dump(mode="json"), "epochs": 2}


def test_the_served_model_answers_test_rows_without_a_look_at_their_labels(
    table: Table, training: dict[str, Any]
) -> None:
    split = Split(np.arange(2_000), np.arange(2_000, 2_300))
    first = served.answers(table, split, training, seed=7)
    assert first.seconds > 0
    assert scores(table["cnt"][split.test], first.rentals).rmse < 2 * np.std(table["cnt"][split.test])
    changed = {name: values.copy() for name, values in table.items()}
    for name in (features.LABEL, *features.LEAKS):
        changed[name][2_000:] = 1.0
    again = served.answers(changed, split, training, seed=7)
    assert np.array_equal(again.rentals, first.rentals)
    assert np.array_equal(again.without_optional, first.without_optional)


def test_one_training_is_asked_with_the_optional_inputs_and_without_them(
    table: Table, training: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bike_pipeline.modeling import preprocessing
    from bike_pipeline.modeling import training as trainer

    trained, asked = [], []

    class Model:
        inputs = (SimpleNamespace(name=preprocessing.DENSE),)

        def __call__(self, columns: Any, training: bool) -> Any:
            asked.append(columns[preprocessing.DENSE])
            return np.full(len(asked[-1]), np.log1p(100.0 * len(asked)))

    def train(columns: Any, settings: Any, seed: int) -> Any:
        trained.append((len(columns[features.LABEL]), seed))
        return Model(), []

    monkeypatch.setattr(trainer, "train_transformed", train)
    found = served.answers(table, Split(np.arange(500), np.arange(500, 800)), training, seed=7)
    assert trained == [(500, 7)]
    np.testing.assert_allclose([found.rentals, found.without_optional], [[100.0] * 300, [200.0] * 300])
    past, now = 4 + list(preprocessing.PAST).index("temp_mean_24h"), preprocessing.WEATHER.index("temp")
    assert (asked[0][:, past] != asked[0][:, now]).any()
    assert (asked[1][:, past] == asked[1][:, now]).all()


def test_the_row_without_the_optional_inputs_is_of_the_same_trainings_and_is_not_judged(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = []

    def answers(table: Table, split: Split, training: Any, seed: int) -> served.Answers:
        seeds.append(seed)
        label = table["cnt"][split.test]
        return served.Answers(label + 10.0, label + 5.0, 2.0)

    monkeypatch.setattr(served, "answers", answers)
    found = model_quality.run_served(table, "P2", load_settings().training)
    assert (tuple(seeds), found.seconds) == (model_quality.SEEDS, 2.0)
    rows = {name: every[-1] for name, every in found.scores.items()}
    assert {name: round(score.rmse, 6) for name, score in rows.items()} == {
        model_quality.SERVED: 10.0,
        model_quality.REQUIRED_ONLY: 5.0,
    }
    (rmse, _, *_) = model_quality.judged_of("P2", {**rows, "a tree": Scores(12.0, 0, 9.0, 0, 0)})
    assert (round(rmse.figure, 6), rmse.best_peer, rmse.word) == (10.0, ("a tree", 12.0), "goal reached")
    # It stands in for neither a peer nor the served model.
    assert {verdict.best_peer for verdict in model_quality.judged_of("P2", rows)} == {None}
    alone = {model_quality.REQUIRED_ONLY: GOOD, "a tree": GOOD}
    assert [verdict.word for verdict in model_quality.judged_of("P2", alone)] == ["MISSED", "MISSED"]


def test_peers_whose_libraries_are_absent_are_an_error(table: Table, tmp_path: Path) -> None:
    data = tmp_path / "hour.csv"
    data.write_bytes(embedded_bytes())
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\necho 'no lightgbm' >&2\nexit 1\n")
    bare.chmod(0o755)
    with pytest.raises(SystemExit, match="the peers did not run"):
        model_quality.run_peers(str(bare), "peers", data, ["P1"])


def test_a_protocol_that_is_none_is_an_error() -> None:
    program = [sys.executable, "-m", "benchmarks.model_quality", "--protocols", "P1,P9"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "P9 is no protocol" in done.stderr
