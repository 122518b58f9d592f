"""What looks at the requests and measures: one module each, all called alike; none of them decides anything.

`verdicts.decide` does, on what all of them measured. Every docstring says what counts as one observation: days or
hours, never rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from bike_pipeline.monitoring.columns import Columns, Window
from bike_pipeline.monitoring.detectors import (
    coverage,
    data_faults,
    distributions,
    domain_classifier,
    error_by_slice,
    error_stream,
    estimated_error,
    feed_faults,
    level,
    operation,
    outliers,
    sensitivity,
    skew,
)
from bike_pipeline.monitoring.reference import Reference
from bike_pipeline.monitoring.verdicts import Measurement
from bike_pipeline.settings.monitoring import DetectorSettings

Measure = Callable[[Columns, Reference, Sequence[Window], DetectorSettings], Iterator[Measurement]]
DETECTORS: tuple[Measure, ...] = (
    data_faults.measure,
    feed_faults.measure,
    distributions.measure,
    skew.measure,
    domain_classifier.measure,
    outliers.measure,
    level.measure,
    error_stream.measure,
    error_by_slice.measure,
    coverage.measure,
    estimated_error.measure,
    sensitivity.measure,
    operation.measure,
)


def measure_all(
    observed: Columns, reference: Reference, windows: Sequence[Window], settings: DetectorSettings
) -> list[Measurement]:
    """Return what every detector measured.

    Args:
        observed: rows of requests with answers, and labels as far as they are known.
        reference: what they are compared with.
        windows: first and last moment of each, local, rising.
        settings: the smallest changes that matter.

    Raises:
        MissingExtraError: the extra `monitoring` is not installed.
    """
    from bike_pipeline import extras

    extras.require("monitoring", "looking for changes in requests")
    return [one for measure in DETECTORS for one in measure(observed, reference, windows, settings)]
