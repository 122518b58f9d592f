"""What the exploration says of rows: gaps, faults, seasons and drift, on frames of which the answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bike_pipeline.notebook_views import exploration
from bike_pipeline.notebook_views.elements import Html
from tests.notebook_views.making import champion, drawn, hours


def without(rows: pd.DataFrame, *missing: str) -> pd.DataFrame:
    return rows[~rows["time"].isin(pd.to_datetime(list(missing)))].reset_index(drop=True)


def test_gaps_are_told_longest_first() -> None:
    rows = without(hours("2011-01-01", 3), "2011-01-01 04:00", "2011-01-01 23:00", "2011-01-02 00:00")
    found = exploration.gaps(rows)
    assert found.to_dict("records") == [
        {"first": pd.Timestamp("2011-01-01 23:00"), "last": pd.Timestamp("2011-01-02 00:00"), "hours": 2},
        {"first": pd.Timestamp("2011-01-01 04:00"), "last": pd.Timestamp("2011-01-01 04:00"), "hours": 1},
    ]
    assert repr(exploration.missing_summary(champion(rows))) == (
        "3 of 72 hours have no row (4.2%), on 2 days; of 2 gaps, 1 last one hour. The longest lasts 2 hours, from "
        "Saturday, 01 January 2011, 23:00, to Sunday, 02 January, 00:00."
    )
    table = repr(exploration.longest_gaps(champion(rows), count=1)).splitlines()
    assert table[1:] == ["Sat 2011-01-01 23:00\tSun 2011-01-02 00:00\t2\t32 rented, clear\t11 rented, clear"]
    drawn(exploration.missing_hours(champion(rows)))


def test_rows_without_a_gap() -> None:
    whole = champion(hours("2011-01-01", 2))
    assert repr(exploration.missing_summary(whole)) == "Each of the 48 hours from the first to the last has a row."
    assert len(repr(exploration.longest_gaps(whole)).splitlines()) == 1
    drawn(exploration.missing_hours(whole))


def test_faults_are_named_with_their_hours_and_days() -> None:
    rows = hours("2011-01-01", 3)
    second = rows["time"].dt.day == 2
    rows.loc[second, "atemp"] = 0.2424
    rows.loc[second, "hum"] = 0.0
    rows.loc[0, "weathersit"] = 4
    found = champion(rows)
    lines = repr(exploration.quality_issues(found)).splitlines()[1:]
    day = "24\t1\t2011-01-02\t2011-01-02"
    assert f"hum\t0 as stored; the next value is 30.0 %\t{day}" in lines
    assert f"atemp\tstuck at 0.0 °C for a day\t{day}" in lines
    assert f"hum\tstuck at 0.0 % for a day\t{day}" in lines
    assert "weathersit\tcode 4 hardly occurs\t1\t1\t2011-01-01\t2011-01-01" in lines
    assert len(lines) == 4
    drawn(exploration.stuck_days(found))


def test_a_column_of_zeros_has_no_next_value() -> None:
    rows = hours("2011-01-01", 2, windspeed=0.0)
    assert "windspeed\t0 as stored\t48\t2\t" in repr(exploration.quality_issues(champion(rows)))


def test_a_day_of_few_hours_is_not_stuck() -> None:
    rows = hours("2011-01-01", 2, temp=0.5)
    assert exploration.stuck_sensors(rows.iloc[: 24 + 11]) == [("temp", pd.Timestamp("2011-01-01"))]


def test_sound_rows_have_no_faults() -> None:
    found = champion(hours("2011-01-01", 3))
    assert len(repr(exploration.quality_issues(found)).splitlines()) == 1
    assert repr(exploration.stuck_days(found)) == "No sensor has one value for a whole day."


@pytest.mark.parametrize("days", [40, 400])
def test_months_and_weather_of_one_year_and_of_two(days: int) -> None:
    rows = hours("2011-01-01", days)
    rows.loc[rows.index[::7], "weathersit"] = 3
    figure = drawn(exploration.months_and_weather(champion(rows))).figure
    years, weather = figure.axes
    assert len(years.lines) == rows["yr"].nunique()
    assert [text.get_text() for text in weather.get_yticklabels()] == [
        f"clear\n({(rows['weathersit'] == 1).sum():,} hours)",
        f"light rain or snow\n({(rows['weathersit'] == 3).sum():,} hours)",
    ]


def test_the_hour_explains_a_label_that_follows_it() -> None:
    found = repr(exploration.explained_variance(champion(hours("2011-01-01", 30))))
    assert found.startswith("Hour and kind of day explain 100% of the variance")
    assert "; 0% are left." in found


def test_a_constant_label_has_no_variance_to_explain() -> None:
    assert "explain 0% of the variance" in repr(exploration.explained_variance(champion(hours("2011-01-01", 2, cnt=5))))


def test_a_label_that_grows_moves_alone() -> None:
    second = hours("2012-02-01", 60, span=2)
    rows = pd.concat([hours("2011-01-01", 60), second.assign(cnt=second["cnt"] * 2)], ignore_index=True)
    before, after, periods = exploration.halves(rows)
    # February is the month that both have on fourteen days.
    assert periods == "2011-02-01 to 2011-02-28 and 2012-02-01 to 2012-02-29, in the months that both have (1 of 12)"
    assert (len(before), len(after)) == (28 * 24, 29 * 24)
    lines = repr(exploration.drift(champion(rows))).splitlines()
    assert lines[0] == f"{periods}. Rentals change by +100%; inputs with PSI ≥ 0.1: none"
    verdicts = {line.split("\t")[0]: line.split("\t")[-1] for line in lines[2:]}
    assert verdicts.pop("cnt") == "✘ significant"
    assert set(verdicts.values()) == {"✔ stable"}
    assert "yr" not in verdicts


def test_one_span_is_cut_in_the_middle() -> None:
    rows = hours("2011-01-01", 59)
    before, after, periods = exploration.halves(rows)
    assert len(before) == len(after) == 59 * 12
    assert periods == "2011-01-01 to 2011-01-30 and 2011-01-30 to 2011-02-28, which have no month in common"
    shown = exploration.drift(champion(rows))
    assert isinstance(shown, Html)
    assert "inputs with PSI ≥ 0.1: mnth" in repr(shown)


def test_psi_of_measured_values_and_codes() -> None:
    values = np.random.default_rng(0).normal(size=5000)
    assert exploration.psi(values, values, codes=False) == 0
    assert exploration.psi(values, values[::2], codes=False) < 0.01
    assert exploration.psi(values, values + 1, codes=False) > exploration.PSI_SIGNIFICANT
    # Two codes of the same rows: (0.9 - 0.5) ln(0.9/0.5) + (0.1 - 0.5) ln(0.1/0.5).
    even, odd = np.repeat([1, 2], 5000), np.repeat([1, 2], [9000, 1000])
    assert exploration.psi(even, odd, codes=True) == pytest.approx(0.879, abs=0.002)
    # A code that only one side has is a bin of its own.
    assert exploration.psi(np.ones(1000), np.full(1000, 2), codes=True) > 5
