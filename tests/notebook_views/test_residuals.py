"""What is said of a model's errors, on frames of which the errors are known."""

from __future__ import annotations

import numpy as np

from bike_pipeline.notebook_views import model, residuals
from tests.notebook_views.making import champion, drawn, hours


def test_the_summary_names_the_hardest_hour() -> None:
    # Three weeks from a Monday on; off by 8 at eight o'clock on working days, by 1 otherwise.
    rows = hours("2011-01-03", 21, cnt=10)
    rush = (rows["hr"] == 8) & (rows["workingday"] == 1)
    found = repr(residuals.summary(champion(rows, np.where(rush, 8.0, 1.0))))
    size = (15 * 8 + (504 - 15)) / 504
    assert found == (
        f"The model is off by {size:.1f} rentals an hour on average and {size / 10:.1%} too high on the whole. It is "
        f"off most at 8 o'clock on working days, by 8.0. The 10 worst of 504 hours lie on 10 days and hold "
        f"{80 / (504 * size):.1%} of all error."
    )


def test_errors_that_cancel_out_are_neither_high_nor_low() -> None:
    rows = hours("2011-01-03", 2)
    found = repr(residuals.summary(champion(rows, np.tile([1.0, -1.0], 24))))
    assert "1.0 rentals an hour on average and neither too high nor too low" in found


def test_weeks_begin_with_the_first_day_of_the_eval_rows() -> None:
    error = np.repeat([-2.0, -4.0], [7 * 24, 3 * 24])
    figure = drawn(residuals.errors_by_time(champion(hours("2011-01-05", 10), error))).figure
    by_hour, by_week = figure.axes
    assert [bar.get_height() for bar in by_week.patches] == [2.0, 4.0]
    assert [text.get_text() for text in by_week.get_xticklabels()] == ["05\nJan", "12\nJan"]
    assert {line.get_label() for line in by_hour.lines} >= {"working days: MAE", "weekends and holidays: mean error"}


def test_every_slice_has_a_bar_of_its_bias() -> None:
    rows = hours("2011-01-03", 7, cnt=10)
    found = drawn(residuals.bias_by_slice(champion(rows, np.where(rows["workingday"] == 1, 1.0, -2.0)))).figure.axes
    assert [axis.get_title() for axis in found] == ["hour band", "workingday", "season", "weathersit"]
    assert [text.get_text() for text in found[1].get_yticklabels()] == ["no working day (48)", "working day (120)"]
    assert np.allclose([bar.get_width() for bar in found[1].patches], [-20, 10])


def test_days_around_a_holiday_are_counted_from_the_nearest() -> None:
    rows = hours("2011-01-03", 9, cnt=10)
    rows.loc[rows["time"].dt.day.isin([5, 8]), "holiday"] = 1
    error = np.where(rows["time"].dt.day == 6, 5.0, 0.0)
    lines = repr(residuals.around_holidays(champion(rows, error))).splitlines()
    assert lines[0] == "On these days the model is 6.2% too high, on all others neither too high nor too low"
    assert [line.split("\t")[:2] for line in lines[2:]] == [
        ["Mon 2011-01-03", "2 days before"],
        ["Tue 2011-01-04", "1 day before"],
        ["Wed 2011-01-05", "public holiday"],
        ["Thu 2011-01-06", "1 day after"],
        ["Fri 2011-01-07", "1 day before"],
        ["Sat 2011-01-08", "public holiday"],
        ["Sun 2011-01-09", "1 day after"],
        ["Mon 2011-01-10", "2 days after"],
    ]
    assert lines[5].split("\t")[2:] == ["24", "240", "360", "+50 %"]


def test_without_a_holiday_that_is_said() -> None:
    found = repr(residuals.around_holidays(champion(hours("2011-01-03", 2))))
    assert found.splitlines()[0] == "No public holiday is among the eval rows"
    assert len(found.splitlines()) == 2


def test_a_model_without_errors_is_shown_as_such() -> None:
    exact = champion(hours("2011-01-03", 3))
    assert "off by 0.0 rentals an hour on average and neither too high nor too low" in repr(residuals.summary(exact))
    assert "hold 0.0% of all error" in repr(residuals.summary(exact))
    drawn(residuals.errors_by_time(exact))
    drawn(residuals.bias_by_slice(exact))
    drawn(model.agreement(exact))


def test_hours_in_which_nobody_rides_have_no_share() -> None:
    nobody = champion(hours("2011-01-03", 2, cnt=0), 1.0)
    assert "too high" in repr(residuals.summary(nobody))
    drawn(residuals.bias_by_slice(nobody))


def test_the_worst_hours_come_with_their_rows() -> None:
    rows = hours("2011-01-03", 1, weathersit=2, temp=0.17)
    rows.loc[5, "holiday"] = 1
    lines = repr(model.worst_hours(champion(rows, np.where(rows["hr"] == 5, -4.0, 1.0)), count=2)).splitlines()
    assert lines[1] == "Mon 2011-01-03 05:00\t15\t11\t-4\tmist\t0 °C\t35 %\t23\tyes"
    assert len(lines) == 3
