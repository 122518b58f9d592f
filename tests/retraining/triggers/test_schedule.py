"""Times of a schedule: each once, also where the clock jumps, and one for all that were missed."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from bike_pipeline.errors import ConfigurationError
from bike_pipeline.retraining.triggers.schedule import Schedule


@pytest.fixture
def wall(monkeypatch):
    class Wall:
        now = datetime(2026, 6, 1, 12, 0, 30, tzinfo=UTC)

        def __call__(self):
            return self.now.timestamp()

    made = Wall()
    monkeypatch.setattr("time.time", made)
    return made


@pytest.fixture
def scheduled(settings_of, ledger, wall):
    def made(cron, zone="UTC"):
        return Schedule(settings_of(schedule__cron=json.dumps(cron), schedule__zone=zone), ledger)

    return made


def seen(trigger, loop, ledger):
    """Look as the loop does; return how many events the ledger has."""
    loop.poll(everything=True)
    return [one.event.name for one in ledger.events()]


def test_without_a_time_it_says_so(scheduled):
    (note,) = scheduled("").look().notes
    assert "no time is named" in note.text


def test_a_time_that_comes_is_one_event_and_nothing_before_the_first_look_is(scheduled, wall, ledger, make_loop):
    trigger = scheduled("0 * * * *")
    loop = make_loop(triggers=[trigger])
    assert seen(trigger, loop, ledger) == []
    wall.now += timedelta(minutes=59)
    assert seen(trigger, loop, ledger) == []
    wall.now += timedelta(seconds=30)
    wall.now += timedelta(milliseconds=1)
    for _ in range(3):
        assert seen(trigger, loop, ledger) == ["2026-06-01 13:00 UTC"]


def test_what_was_missed_while_nobody_watched_is_one_event(scheduled, wall, ledger, make_loop):
    first = scheduled("0 * * * *")
    seen(first, make_loop(triggers=[first]), ledger)
    wall.now += timedelta(days=3)
    later = scheduled("0 * * * *")
    loop = make_loop("later", triggers=[later])
    for _ in range(3):
        assert seen(later, loop, ledger) == ["2026-06-04 12:00 UTC"]


def test_a_process_that_dies_before_its_event_is_recorded_loses_none(scheduled, wall, ledger, make_loop):
    trigger = scheduled("0 * * * *")
    trigger.look()
    wall.now += timedelta(hours=1)
    assert trigger.look().events
    after = scheduled("0 * * * *")
    assert seen(after, make_loop(triggers=[after]), ledger) == ["2026-06-01 13:00 UTC"]


def test_a_clock_that_is_set_back_repeats_nothing_and_waits_for_nothing(scheduled, wall, ledger, make_loop):
    trigger = scheduled("0 * * * *")
    loop = make_loop(triggers=[trigger])
    seen(trigger, loop, ledger)
    wall.now += timedelta(days=365)
    assert len(seen(trigger, loop, ledger)) == 1
    seen(trigger, loop, ledger)
    # It was a year ahead.
    wall.now -= timedelta(days=365)
    assert len(seen(trigger, loop, ledger)) == 1
    wall.now += timedelta(hours=1)
    assert seen(trigger, loop, ledger)[1:] == ["2026-06-01 13:00 UTC"]
    seen(trigger, loop, ledger)
    # Back by less than its pause: the same minute comes again and is known.
    wall.now -= timedelta(minutes=45)
    seen(trigger, loop, ledger)
    wall.now += timedelta(minutes=50)
    assert len(seen(trigger, loop, ledger)) == 2


@pytest.mark.parametrize(
    ("cron", "begins", "expected"),
    [
        # 02:30 is left out in spring, and there twice in autumn.
        ("30 2 * * *", datetime(2026, 3, 28, 12, tzinfo=UTC), ["2026-03-29 03:00 CEST"]),
        ("30 2 * * *", datetime(2026, 10, 24, 12, tzinfo=UTC), ["2026-10-25 02:30 CEST"]),
        # What comes each hour comes each hour, whatever that is called.
        ("0 * * * *", datetime(2026, 10, 24, 22, 30, tzinfo=UTC), [
            "2026-10-25 01:00 CEST", "2026-10-25 02:00 CEST", "2026-10-25 02:00 CET", "2026-10-25 03:00 CET",
            "2026-10-25 04:00 CET",
        ]),
    ],
)  # fmt: skip
def test_summer_time_neither_loses_nor_doubles_a_time(cron, begins, expected, scheduled, wall, ledger, make_loop):
    trigger = scheduled(cron, "Europe/Berlin")
    loop = make_loop(triggers=[trigger])
    wall.now = begins
    for _ in range(int(24 * 60 / 10) if "2 *" in cron else 29):
        found = seen(trigger, loop, ledger)
        wall.now += timedelta(minutes=10, seconds=1)
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize(
    ("cron", "zone"),
    [("61 * * * *", "UTC"), ("* * * *", "UTC"), ("0 0 * * * *", "UTC"), ("0 0 30 2 *", "UTC"), ("0 3 * * *", "Mars/X"),
     ("0 3 * * *", "Europe"), ("", "../etc")],
)  # fmt: skip
def test_what_names_no_time_is_refused(cron, zone, scheduled):
    with pytest.raises(ConfigurationError, match=r"retraining\.schedule"):
        scheduled(cron, zone)
