"""Long work says how far it is where no terminal shows it, too."""

import io

import pytest

from bike_pipeline import progress
from bike_pipeline.commands import shared


@pytest.mark.parametrize(("seconds", "lines"), [(0.0, ["trained 1 of 2", "trained 2 of 2"]), (3600.0, [])])
def test_a_line_now_and_then_where_there_is_no_terminal(monkeypatch, seconds, lines):
    monkeypatch.setattr(shared, "_LINE_SECONDS", seconds)
    screen = io.StringIO()
    with shared.progress_on(screen, silent=False):
        progress.report(0.5, "trained 1 of 2")
        progress.report(1.0, "trained 2 of 2")
    assert screen.getvalue().splitlines() == lines


def test_nothing_where_only_json_is_wanted(monkeypatch):
    monkeypatch.setattr(shared, "_LINE_SECONDS", 0.0)
    screen = io.StringIO()
    with shared.progress_on(screen, silent=True):
        progress.report(1.0, "trained")
    assert screen.getvalue() == ""
