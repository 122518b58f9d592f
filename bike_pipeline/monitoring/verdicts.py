"""One path from what detectors measure to what they say: effect first, then significance, then persistence.

A detector measures each subject (a feature, a slice, the answers) in each window and decides nothing. A subject has
changed if its effect is at least the smallest that matters, in a unit that a person knows, if that is no accident among
all the subjects and windows that its detector looked at (Benjamini and Hochberg 1995), and if it holds in two of the
last three windows; what is certain holds at once. Too few rows are not judged, which is never the same as fine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bike_pipeline.settings.monitoring import DecisionSettings

Kind = Literal["data fault", "data drift", "concept drift", "model", "operation"]
# From good to bad; "harmless" has changed and costs nothing (see `attribution`).
Status = Literal["fine", "harmless", "not judged", "changed"]
STATUSES: tuple[Status, ...] = ("fine", "harmless", "not judged", "changed")


@dataclass(frozen=True)
class Measurement:
    """What a detector measured of a subject in a window.

    Attributes:
        detector: its name, such as "population_stability".
        kind: what a change of it is.
        subject: a feature, a slice ("season winter") or "answers".
        first: the first moment of the window, local.
        last: its last moment.
        reference: what the window is compared with, in words.
        rows: rows of the window that count.
        reference_rows: rows of the reference; None where the detector needs none.
        effect: how large the change is, in `unit`; None if it cannot be told, and `reason` says why.
        unit: such as "rentals", "°C", "index" or "share".
        minimum: the smallest |effect| that matters.
        p_value: how likely it is by accident; None for what is certain, such as a value out of its range.
        reason: what was seen, in words.
        at_once: whether one window is enough: it is certain, or the detector itself waits for days that agree.
    """

    detector: str
    kind: Kind
    subject: str
    first: datetime
    last: datetime
    reference: str
    rows: int
    reference_rows: int | None
    effect: float | None
    unit: str
    minimum: float
    p_value: float | None = None
    reason: str = ""
    at_once: bool = False


@dataclass(frozen=True)
class Verdict:
    """What is said of a subject: the same two parts from every detector, as plain values.

    Attributes:
        data: status, reason, effect, unit, minimum, p_value, adjusted_p_value, rows, reference_rows, of the newest
            window; windows (of each looked at, the newest last, whether it changed; None where it was not judged);
            harm once it is known.
        meta: detector, kind, subject, first, last, reference.
    """

    data: Mapping[str, Any]
    meta: Mapping[str, Any]

    @property
    def status(self) -> Status:
        status: Status = self.data["status"]
        return status

    def with_data(self, **more: Any) -> Verdict:
        """Return it with more said, such as its harm."""
        return Verdict({**self.data, **more}, self.meta)


@dataclass
class _Subject:
    newest: Measurement
    windows: list[bool | None] = field(default_factory=list)
    adjusted: float | None = None


def adjusted(p_values: Sequence[float]) -> npt.NDArray[np.float64]:
    """Return p-values adjusted for how many there are, (n,), by Benjamini and Hochberg's procedure."""
    from scipy.stats import false_discovery_control

    return np.asarray(false_discovery_control(p_values)) if len(p_values) else np.zeros(0)


def decide(measurements: Iterable[Measurement], settings: DecisionSettings) -> list[Verdict]:
    """Return one verdict for each detector and subject, of the newest window, in the order they were measured in."""
    every = sorted(measurements, key=lambda one: one.last)
    judged = [one for one in every if _why_not(one, settings) is None]
    corrected: dict[int, float] = {}
    # Detectors are ways of looking at the same rows: each answers for its own subjects and windows.
    # Where one window is enough, the others are no further chances.
    families: dict[tuple[str, datetime | None], list[Measurement]] = {}
    for one in judged:
        if one.p_value is not None:
            families.setdefault((one.detector, one.last if one.at_once else None), []).append(one)
    for tested in families.values():
        corrected |= zip(map(id, tested), adjusted([one.p_value or 0.0 for one in tested]), strict=True)
    subjects: dict[tuple[str, str], _Subject] = {}
    able = {id(one) for one in judged}
    for one in every:
        subject = subjects.setdefault((one.detector, one.subject), _Subject(one))
        subject.newest, subject.adjusted = one, corrected.get(id(one))
        changed = None
        if id(one) in able:
            certain = one.p_value is None or corrected[id(one)] <= settings.false_discovery_rate
            changed = bool(certain) and abs(one.effect or 0.0) >= one.minimum
        subject.windows.append(changed)
    return [_verdict(subject, settings) for subject in subjects.values()]


def _why_not(one: Measurement, settings: DecisionSettings) -> str | None:
    """Return why a measurement cannot be judged; None if it can."""
    if one.effect is None or not math.isfinite(one.effect):
        return one.reason or "its effect is no number"
    if one.p_value is not None and math.isnan(one.p_value):
        return one.reason or "its p-value is no number"
    if one.rows < settings.fewest_rows:
        return f"{one.rows} rows, of {settings.fewest_rows} that it takes"
    if one.reference_rows is not None and one.reference_rows < settings.fewest_rows:
        return f"the reference has {one.reference_rows} rows, of {settings.fewest_rows} that it takes"
    return None


def _verdict(subject: _Subject, settings: DecisionSettings) -> Verdict:
    one, windows = subject.newest, subject.windows[-settings.windows :]
    count = sum(window is True for window in windows)
    why_not = _why_not(one, settings)
    status: Status = "fine"
    reason = one.reason
    if why_not is not None:
        status, reason = "not judged", why_not
    elif windows[-1] if one.at_once else count >= settings.persistent_windows:
        status = "changed"
    elif windows[-1]:
        # What holds in one window alone is told and starts nothing.
        reason = f"{reason or 'changed'}; in {count} of {len(windows)} windows so far".lstrip("; ")
    values = asdict(one)
    del values["at_once"]
    meta = {name: values.pop(name) for name in ("detector", "kind", "subject", "first", "last", "reference")}
    data = {**values, "status": status, "reason": reason, "adjusted_p_value": subject.adjusted, "windows": windows}
    return Verdict(data, meta)
