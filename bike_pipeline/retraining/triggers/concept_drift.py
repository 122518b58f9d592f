"""Concept drift: labels and answers have moved apart, a retraining helps for certain, and there are rows to learn from.

What the monitor reported last decides where that is new enough and of the version that serves. Else an alert does that
Alertmanager sent. Either way a run takes place once for a model and the rows that are there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC
from typing import TYPE_CHECKING, Any, ClassVar

from bike_pipeline.errors import DataError
from bike_pipeline.retraining.events import CONCEPT_DRIFT, ENDED, Event, digest_of
from bike_pipeline.retraining.triggers import Look, Note
from bike_pipeline.retraining.triggers.storage import take
from bike_pipeline.retraining.uploads import Uploads
from bike_pipeline.retraining.watched_folders import watched_folder

if TYPE_CHECKING:
    from bike_pipeline.data.manifest import SpanVersion
    from bike_pipeline.monitoring.report import MonitorReport
    from bike_pipeline.retraining.ledger import Ledger
    from bike_pipeline.retraining.triggers.storage import Taken
    from bike_pipeline.settings import Settings

# Where the ledger keeps what Alertmanager sent last: `at` and `summary`.
ALERT = "concept-drift alert"
_KIND = "concept drift"
_HELPING = ("retrain", "feedback")
_HOUR = 3600.0


class ConceptDrift:
    """Looks at the monitor's newest report, at the last alert and at the span store."""

    name: ClassVar[str] = CONCEPT_DRIFT
    every_seconds = 10.0

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        """Look at what these settings name."""
        self._settings, self._ledger = settings, ledger
        self._uploads = Uploads(settings.retraining_path / "uploads")
        section = settings.retraining.storage
        self._most = section.most_megabytes * 1_000_000
        folder, _, self._file = settings.retraining.concept_drift.data.rpartition("/")
        self._place = watched_folder(folder or ".", section.settle_seconds, section.remote_seconds, self._most)
        # The mark of the file of rows, and what became of it.
        self._taken: tuple[str, Taken] | None = None

    def look(self) -> Look:
        """Return an event if the demand has changed and a run would learn something new of it; else say why not."""
        from bike_pipeline.model_registry import ModelRegistry
        from bike_pipeline.monitoring import report as reports

        version = ModelRegistry(self._settings.serving_path).serving()
        if version is None:
            return _only("", "no model serves yet")
        report = reports.newest(self._settings.monitoring_path)
        why, source = self._outdated(report, version), "the monitor's report"
        if report is not None and not why:
            reason, why = of_report(report)
        else:
            alert = self._ledger.control(ALERT)
            fresh = alert is not None and self._age(alert["at"]) is None
            reason = f"{_KIND}, by Alertmanager: {alert['summary']}" if alert is not None and fresh else ""
        return self._drifted(reason) if reason else _only(source, why)

    def _age(self, at: float) -> str | None:
        """Return how old something is, in words, if it is too old."""
        most = self._settings.retraining.concept_drift.max_age_hours
        hours = (time.time() - at) / _HOUR
        return None if hours <= most else f"{hours:.0f} hours old, and {most:g} are allowed"

    def _outdated(self, report: MonitorReport | None, version: int) -> str:
        if report is None:
            return "the monitor has not looked yet, and no alert came"
        if report.version != version:
            return f"the monitor looked at version {report.version}, and version {version} serves"
        age = self._age(report.at.timestamp())
        return f"the report of {report.at:%Y-%m-%d %H:%M} UTC is {age}" if age else ""

    def _drifted(self, reason: str) -> Look:
        from bike_pipeline.data.spans import SpanStore
        from bike_pipeline.lineage.queries.evidence import window_of
        from bike_pipeline.lineage.queries.model_lookup import find_model
        from bike_pipeline.lineage.store.connection import open_at
        from bike_pipeline.lineage.store.metadata_store import Lineage

        settings = self._settings
        lineage = Lineage(open_at(settings.metadata_address))
        model = find_model(lineage, settings.serving_path, None).model_id
        source, stored = f"model {model}", SpanStore(settings.store_uri).all_versions()
        if self._file:
            found = self._brought(source, reason, stored)
            if found is not None:
                return found
        window = window_of(lineage.trained_on(model))
        if not window:
            return _only(source, f"{reason}; but what {source} learnt is not on record")
        learnt = {(one["span"], one["version"]) for one in window}
        newest = {one.span: one for one in stored if one.span >= window[0]["span"]}
        if all((one.span, one.version) in learnt for one in newest.values()):
            return _only(
                source,
                f"{reason}; but no rows are newer than what {source} learnt, so a run would train the same model again",
            )
        content = digest_of(*(one.manifest.content_sha256 for one in newest.values()))
        return Look((Event(self.name, source, content, source, reason),), (Note(source, reason),))

    def _brought(self, source: str, reason: str, stored: list[SpanVersion]) -> Look | None:
        """Return an event with the file of rows that the settings name; None if the span store has it already."""
        place, name = self._place, self._file
        entry = next((one for one in place.entries() if one.name == name), None)
        if entry is None or entry.why_not:
            return _only(place.source, f"{reason}; but {entry.why_not if entry else 'there is no such file'}", name)

        def made(sha: str, path: str) -> Event:
            return Event(self.name, source, sha, entry.shown, reason, path)

        mark = digest_of(source, entry.mark)
        if self._taken is None or self._taken[0] != mark:
            try:
                self._taken = mark, take(self._uploads, self._ledger, place, entry, self._most, made)
            except DataError as error:
                return _only(place.source, f"{reason}; but {error.what}", name)
        event = self._taken[1].event
        with suppress(DataError):
            known = self._ledger.find(event.identity)
            if known.state in ENDED:
                return _only(source, f"{reason}; but {entry.shown} was tried: it is {known.state}: {known.why}")
            return Look((event,), (Note(source, reason),))
        if any(event.digest == file.sha256 for one in stored for file in one.manifest.source.files):
            self._uploads.drop(event)
            return None
        return Look((event,), (Note(source, reason),))


def of_report(report: MonitorReport) -> tuple[str, str]:
    """Return why a report asks for a run, and "", or "" and why it does not."""
    from bike_pipeline.monitoring.report import amount

    changed = {verdict["meta"]["kind"] for verdict in report.verdicts if verdict["data"]["status"] == "changed"}
    if report.status == "not judged":
        return "", f"not judged: {report.missing[0] if report.missing else 'there is not enough to look at'}"
    if "data fault" in changed:
        return "", "the data are at fault; nobody shall learn from them"
    if _KIND not in changed:
        told = f"changed, and no concept drift: {', '.join(sorted(changed))}" if changed else report.status
        return "", f"{told}; labels and answers have not moved apart"
    best: Mapping[str, Any] | None = report.remedies[0] if report.remedies else None
    if best is None:
        return "", f"{_KIND}; but what helps cannot be told: {'; '.join(report.missing) or 'no remedy was tried'}"
    gain = best["gain"]
    if best["remedy"] not in _HELPING:
        return "", f"{_KIND}; but what helps is: {best['remedy']} ({best['reason']})"
    if not best["helps"] or gain["low"] is None or gain["low"] <= 0.0:
        return "", f"{_KIND}; but no remedy is certain to help: {best['remedy']}, {amount(gain)} rentals a day"
    at = report.at.astimezone(UTC)
    return f"{_KIND} at {at:%Y-%m-%d %H:%M} UTC; {best['remedy']} helps by {amount(gain)} rentals a day", ""


def _only(source: str, text: str, name: str = "") -> Look:
    return Look(notes=(Note(source, text, name),))
