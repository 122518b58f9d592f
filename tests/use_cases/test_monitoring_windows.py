"""Which hours a look at the model takes, whatever clients ask about and whoever calls it when."""

from datetime import datetime, timedelta

import numpy as np
import pytest
from click.testing import CliRunner

from bike_pipeline.cli import command
from bike_pipeline.monitoring.columns import rows_in
from bike_pipeline.use_cases import monitoring_report


def test_requests_about_the_future_do_not_move_the_window():
    hours = {"hour": np.array([100, 101, 400_000]), "state": np.array(["known", "waiting", "predicted"])}
    assert monitoring_report._behind_newest(hours) == datetime(2011, 1, 5, 6)
    ahead = {name: values[2:] for name, values in hours.items()}
    assert monitoring_report._behind_newest(ahead) == datetime(2011, 1, 1) + timedelta(hours=400_001)


def test_an_hour_that_has_begun_is_in_no_window():
    windows = monitoring_report._windows(datetime(2012, 10, 1, 0, 30), 25 / 24)
    assert windows == monitoring_report._windows(datetime(2012, 10, 1), 25 / 24)
    first, last = windows[-1]
    assert (first, last) == (datetime(2012, 9, 29, 23), datetime(2012, 9, 30, 23))
    hours = np.arange(24 * 365, 24 * 700)
    assert [len(rows_in({"hour": hours}, window)["hour"]) for window in windows] == [25] * 8


@pytest.mark.parametrize("until", ["0001-01-01", "2010-12-31", "9999-12-31T23:00"])
def test_a_window_ends_in_a_year_that_rows_can_have(tmp_path, until):
    asked = ["monitor", "run", "--set", f"workspace={tmp_path}", "--until", until]
    result = CliRunner().invoke(command, asked)
    assert result.exit_code == 2
    assert "is not in the years from 2011 to 2110" in result.output
