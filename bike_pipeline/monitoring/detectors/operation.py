"""Whether the system is as it should be: labels, rows and model fresh, clients there, the promoted version answering.

Nothing here is judged by chance: it is counted, and needs no test. A row that was drawn counts for those that were not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from bike_pipeline.modeling.feedback import HOURS_A_DAY
from bike_pipeline.modeling.label_update import hour_of
from bike_pipeline.monitoring.columns import Columns, Window, answered, hours_of, requests_of, rows_in
from bike_pipeline.monitoring.reference import Reference
from bike_pipeline.monitoring.verdicts import Measurement
from bike_pipeline.settings.monitoring import DetectorSettings

# Of the requests that are usual; a quarter of them is a quiet day.
SILENT_SHARE = 0.9


def measure(
    observed: Columns, reference: Reference, windows: Sequence[Window], settings: DetectorSettings
) -> Iterator[Measurement]:
    """Yield ages in days, the share of usual requests that did not come, and that of answers by other versions."""
    yield from _ages(observed, reference, windows, settings)
    yield from _silence(observed, windows)
    yield from _versions(observed, reference, windows, settings)


def _ages(
    observed: Columns, reference: Reference, windows: Sequence[Window], settings: DetectorSettings
) -> Iterator[Measurement]:
    labelled, spans = np.unique(answered(observed)["hour"]), np.asarray(reference.columns["hour"])
    for window in windows:
        last, rows = hour_of(window[1]), len(rows_in(observed, window)["hour"])
        untrained = reference.first_untrained
        newest = {
            "labels": (labelled[labelled <= last].max(initial=-1), settings.label_age_days),
            "spans": (spans[spans <= last].max(initial=-1), settings.model_age_days),
            "model": (-1 if untrained is None else untrained, settings.model_age_days),
        }
        for subject, (hour, most) in newest.items():
            effect = None if hour < 0 else float(max(last - int(hour), 0)) / HOURS_A_DAY
            reason = f"nothing is known of the age of the {subject}"
            if effect is not None:
                reason = f"the newest hour of the {subject} is {effect:.0f} days before the end of the window"
            yield Measurement(
                "freshness", "operation", subject, *window, "the end of the window", rows, None, effect, "days",
                most, None, reason, at_once=True,
            )  # fmt: skip


def _silence(observed: Columns, windows: Sequence[Window]) -> Iterator[Measurement]:
    hours, requests = hours_of(observed), requests_of(observed)
    ends = [(hour_of(first), hour_of(last)) for first, last in windows]
    rates = [float(requests[(hours >= first) & (hours <= last)].sum()) / (last - first + 1) for first, last in ends]
    for place, (window, (first, last)) in enumerate(zip(windows, ends, strict=True)):
        usual = float(np.median(rates[:place])) if place else 0.0
        # Rows that count are those that were to come.
        rows = round(usual * (last - first + 1))
        # More requests than usual are no silence.
        effect = max(1.0 - rates[place] / usual, 0.0) if usual else None
        reason = "no earlier window tells how many requests are usual"
        if effect is not None:
            reason = f"{rates[place]:.1f} rows an hour, where {usual:.1f} are usual"
        yield Measurement(
            "silence", "operation", "requests", *window, "the windows before", rows, None, effect, "share",
            SILENT_SHARE, None, reason, at_once=True,
        )  # fmt: skip


def _versions(
    observed: Columns, reference: Reference, windows: Sequence[Window], settings: DetectorSettings
) -> Iterator[Measurement]:
    for window in windows:
        now = rows_in(observed, window)
        versions, places = np.unique(now["version"], return_inverse=True)
        counts = np.bincount(places, requests_of(now), len(versions))
        effect, reason = None, "no version is promoted, or nothing was asked"
        if reference.version is not None and len(versions):
            others = versions != reference.version
            effect = float(counts[others].sum() / counts.sum())
            named = ", ".join(str(version) for version in versions[others])
            reason = f"{effect:.0%} of answers are of versions {named}" if effect else "the promoted version answers"
        yield Measurement(
            "version_skew", "operation", "versions", *window, f"the promoted version {reference.version}",
            len(now["hour"]), None, effect, "share of rows", settings.faulty_share, None, reason,
            at_once=True,
        )  # fmt: skip
