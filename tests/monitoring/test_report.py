"""The record of what the monitor found, and its page."""

import dataclasses
import json
from datetime import UTC, date, datetime, timedelta

import pytest

from bike_pipeline.errors import MonitoringError
from bike_pipeline.monitoring import report
from bike_pipeline.monitoring.report import MonitorReport, lights_of
from bike_pipeline.monitoring.timeline import Day, Event
from bike_pipeline.monitoring.verdicts import Measurement, Verdict
from bike_pipeline.settings.monitoring import DecisionSettings

FIRST = datetime(2012, 1, 1)


def measured(week, effect, subject="temp", detector="shift", rows=168):
    first = FIRST + timedelta(weeks=week)
    last = first + timedelta(days=7, hours=-1)
    return Measurement(
        detector, "data drift", subject, first, last, "the same weeks of 2011", rows, 500, effect, "°C", 0.5, 1e-9
    )


def verdict(status, subject="temp", harm=None, effect=2.0):
    data = {
        "status": status, "reason": "it <b>moved</b>", "effect": effect, "unit": "°C", "minimum": 0.5, "rows": 168,
        "reference_rows": 500, "p_value": 1e-9, "adjusted_p_value": 1e-8, "windows": [True, True], "harm": harm,
    }  # fmt: skip
    meta = {
        "detector": "wasserstein", "kind": "data drift", "subject": subject, "first": FIRST,
        "last": FIRST + timedelta(days=7), "reference": "the same weeks of 2011",
    }  # fmt: skip
    return Verdict(data, meta)


def made(**changes):
    """Return a report that holds something of everything."""
    harm = {"rentals_a_day": 812.0, "low": 640.0, "high": 990.0}
    verdicts = [verdict("changed", "answers", harm), verdict("harmless"), verdict("not judged", "season winter")]
    days = [Day(date(2012, 1, 1) + timedelta(days=n), 2 + n // 5, 24, 24 if n < 8 else 0, 40.0 + n) for n in range(10)]
    days = [day if day.known else dataclasses.replace(day, mae=None) for day in days]
    kinds = ("trigger", "refusal", "promotion", "rollback", "feedback")
    events = [
        Event(datetime(2012, 1, 2 + n, 8, tzinfo=UTC), kind, f"a {kind}", "because <it> was so", "history")
        for n, kind in enumerate(kinds)
    ]
    parts = [{"cause": cause, "rentals_a_day": value} for cause, value in (("level", 700.0), ("inputs", -12.0))]
    found = MonitorReport(
        at=datetime(2012, 1, 11, tzinfo=UTC),
        first=FIRST,
        last=FIRST + timedelta(days=7),
        version=3,
        status="changed",
        verdicts=[{"data": one.data, "meta": one.meta} for one in verdicts],
        rows=240,
        hours={"known": 192, "waiting": 48},
        log={"taken": 240, "torn": 1},
        lights=dataclasses.asdict(lights_of([measured(w, 0.1 + w) for w in range(4)], DecisionSettings())),
        days=[dataclasses.asdict(day) for day in days],
        events=[dataclasses.asdict(event) for event in events],
        attribution={"words": "It is the level.", "cause": "level moved", "harm": harm, "parts": parts},
        remedies=[{"remedy": "feedback", "gain": harm, "reason": "the level is what moved"}],
        missing=["no span holds the same weeks of an earlier year"],
    )
    return dataclasses.replace(found, **changes)


def test_a_light_is_what_was_known_at_the_end_of_its_window():
    found = lights_of(
        [measured(0, 0.1), measured(1, 1.0), measured(2, 1.0), measured(3, 1.0, rows=3), measured(0, 1.0, "hum")],
        DecisionSettings(),
    )
    assert found.windows == ("2012-01-07", "2012-01-14", "2012-01-21", "2012-01-28")
    # The second week alone shows it; the third is the second of three.
    assert found.subjects["temp"] == ("fine", "fine", "changed", "not judged")
    # A slice that nothing measured any more is no green light.
    assert found.subjects["hum"] == ("fine", None, None, None)


def test_the_worst_detector_of_a_subject_is_its_light():
    measurements = [measured(w, e, detector=d) for w in range(2) for d, e in (("calm", 0.0), ("loud", 9.0))]
    assert lights_of(measurements, DecisionSettings()).subjects["temp"] == ("fine", "changed")


@pytest.mark.parametrize(
    ("statuses", "said"),
    [
        ([], "not judged"),
        (["not judged"], "not judged"),
        (["fine", "not judged"], "fine"),
        (["harmless", "fine"], "harmless"),
        (["fine", "changed", "not judged"], "changed"),
    ],
)
def test_all_verdicts_come_to_one(statuses, said):
    assert report.overall([verdict(status) for status in statuses]) == said


def test_what_costs_most_comes_first():
    dear, cheap = ({"rentals_a_day": value} for value in (90.0, 9.0))
    found = report.in_order([verdict("fine"), verdict("changed", "b", cheap), verdict("changed", "a", dear)])
    assert [one.meta["subject"] for one in found] == ["a", "b", "temp"]


def test_a_report_is_read_as_it_was_written(tmp_path):
    report.write(made(at=datetime(2012, 1, 10, tzinfo=UTC), status="fine"), tmp_path)
    report.write(made(), tmp_path)
    found = report.newest(tmp_path)
    assert (found.at, found.status, found.rows) == (datetime(2012, 1, 11, tzinfo=UTC), "changed", 240)
    assert report.as_page(found) == report.as_page(made())


def test_a_report_of_a_clock_that_was_wrong_hides_no_later_one(tmp_path):
    ahead, now = (datetime.now(UTC) + timedelta(days=days) for days in (400, 0))
    report.write(made(at=ahead, status="fine"), tmp_path)
    assert report.newest(tmp_path).at == ahead
    report.write(made(at=now), tmp_path)
    assert (report.newest(tmp_path).at, report.newest(tmp_path).status) == (now, "changed")


def test_without_a_report_there_is_none(tmp_path):
    assert report.newest(tmp_path) is None


@pytest.mark.parametrize("damage", ["changed", "torn", "later", "gone"])
def test_a_report_that_was_changed_is_not_believed(tmp_path, damage):
    file = report.write(made(), tmp_path)
    text = file.read_text()
    if damage == "changed":
        file.write_text(text.replace("changed", "fine"))
    elif damage == "torn":
        file.write_text(text[: len(text) // 2])
    elif damage == "later":
        content = {**json.loads(text)["report"], "format": 2}
        from hashlib import sha256

        sealed = sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        file.write_text(json.dumps({"sha256": sealed, "report": content}))
    else:
        file.write_text("{}")
    with pytest.raises(MonitoringError, match="cannot be believed") as raised:
        report.newest(tmp_path)
    assert raised.value.where == str(file)


def test_the_page_says_the_verdict_first_and_escapes_what_it_tells():
    page = report.as_page(made())
    first = (
        "Changed: answers; it costs +812 (+640 to +990) rentals a day, mostly since the level moved. "
        "What helps most: feedback, +812 (+640 to +990) rentals a day."
    )
    assert page.index(first) < page.index("Whence the change comes")
    assert "it &lt;b&gt;moved&lt;/b&gt;" in page
    assert "<b>moved" not in page
    assert "because &lt;it&gt; was so" in page
    for number in range(1, 6):
        assert f'href="#event-{number}"' in page
        assert f'id="event-{number}"' in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")


def test_where_no_remedy_is_certain_the_headline_says_that():
    nothing = {"remedy": "nothing", "gain": {"rentals_a_day": 0.0}, "reason": "what stays as it is costs nothing more"}
    assert report.headline(made(remedies=[nothing])).endswith("No remedy is certain to help.")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"verdicts": [], "status": "not judged"}, "Not judged"),
        ({"verdicts": [{"data": verdict("fine").data, "meta": verdict("fine").meta}], "status": "fine"}, "Nothing has"),
        ({"verdicts": [{"data": verdict("harmless").data, "meta": verdict("fine").meta}], "status": "harmless"},
         "Changed, and harmless: temp."),
    ],
)  # fmt: skip
def test_a_page_without_a_change_says_so(changes, said):
    empty = {"days": [], "events": [], "attribution": None, "remedies": [], "missing": [], "log": {}}
    page = report.as_page(made(**empty, **changes))
    assert said in page
    assert "No answer stands for a day that is known" in page
