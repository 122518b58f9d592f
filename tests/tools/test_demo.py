"""What the demo is made of; CI lives through all of it."""

from __future__ import annotations

import csv

import pytest

from bike_pipeline.data.embedded_dataset import split_demo
from tools import demo


def test_the_year_is_cut_where_the_story_says_and_the_poison_is_in_four_weeks_alone(tmp_path):
    second = split_demo(tmp_path)[1]
    parts = demo.parts_of(second, tmp_path)
    before, after, poisoned, sound = (list(csv.DictReader(path.open())) for path in (*parts, second))
    assert before + after == sound
    assert max(row["dteday"] for row in before) < demo.ASKED_UNTIL == min(row["dteday"] for row in after)
    changed = [row["dteday"] for row, same in zip(poisoned, sound, strict=True) if row != same]
    assert (min(changed), max(changed)) == ("2012-11-01", "2012-11-28")
    assert all(int(row["cnt"]) == int(row["casual"]) + int(row["registered"]) for row in poisoned)


def test_a_command_that_ends_otherwise_ends_the_story_with_what_it_said(tmp_path, capsys):
    story = demo.Story(tmp_path / "demo")
    assert story.call("monitor", "status", codes=(21,)) == ""
    with pytest.raises(demo.DemoError, match=r"exit code 21 of monitor: error: .*the monitor has not looked yet"):
        story.call("monitor", "status")
    assert "$ bike-pipeline monitor status" in capsys.readouterr().out


def test_an_event_that_came_to_something_else_ends_the_story():
    with pytest.raises(demo.DemoError, match=r"bad\.csv is promoted and not refused: version 3 serves"):
        demo.expect({"event": {"name": "bad.csv"}, "state": "promoted", "why": "version 3 serves"}, "refused")


def test_the_storage_of_the_story_is_reached_as_google_s(tmp_path, monkeypatch):
    for name in ("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "STORAGE_EMULATOR_HOST"):
        monkeypatch.setenv(name, "")
    file = tmp_path / "rows.csv"
    file.write_text("a", encoding="utf-8")
    with demo.google_storage() as address:
        import urllib.request

        demo.upload(file)
        with urllib.request.urlopen(f"{address}/storage/v1/b/{demo.BUCKET}/o") as answer:
            assert b"uploads/rows.csv" in answer.read()
