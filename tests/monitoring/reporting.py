"""Reports of the monitor with given verdicts, for tests of what is told of them."""

from __future__ import annotations

from datetime import UTC, datetime

from bike_pipeline.monitoring.report import MonitorReport, in_order, overall
from bike_pipeline.monitoring.verdicts import Measurement, decide
from bike_pipeline.settings.monitoring import DecisionSettings

FIRST, LAST = datetime(2012, 5, 1), datetime(2012, 5, 7, 23)


def measured(kind, subject, detector="level", effect=1.0, rows=168, **changed):
    """Return a measurement whose effect matters from 0.5 on, and holds at once."""
    values = {
        "detector": detector, "kind": kind, "subject": subject, "first": FIRST, "last": LAST,
        "reference": "the same weeks of 2011", "rows": rows, "reference_rows": 1000, "effect": effect,
        "unit": "share", "minimum": 0.5, "at_once": True,
    }  # fmt: skip
    return Measurement(**{**values, **changed})


def reported(*measurements, harm=None, days=()):
    """Return what the monitor says of measurements."""
    verdicts = in_order(decide(measurements, DecisionSettings()))
    if harm is not None:
        verdicts = [verdict.with_data(harm=harm) for verdict in verdicts]
    return MonitorReport(
        at=datetime(2026, 11, 30, 6, tzinfo=UTC), first=FIRST, last=LAST, version=7, status=overall(verdicts),
        verdicts=[vars(verdict) for verdict in verdicts], rows=168,
        hours={"predicted": 168, "waiting": 24, "known": 143, "corrected": 1}, log={"read": 170, "damaged": 2},
        lights={}, days=days,
    )  # fmt: skip
