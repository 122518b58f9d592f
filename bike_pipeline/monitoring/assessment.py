"""What the verdicts of a window come to: what a change costs, why it came and what helps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bike_pipeline.modeling.feedback import HOURS_A_DAY
from bike_pipeline.modeling.label_update import hour_of
from bike_pipeline.monitoring import harm, remedies
from bike_pipeline.monitoring.attribution import Attribution, attribute
from bike_pipeline.monitoring.columns import Columns, Window, hours_of, rows_in, take
from bike_pipeline.monitoring.harm import Harm
from bike_pipeline.monitoring.reference import Reference
from bike_pipeline.monitoring.remedies import Remedy
from bike_pipeline.monitoring.verdicts import Verdict
from bike_pipeline.settings.monitoring import HarmSettings

# The eval split of a year, and a week or two.
_REFERENCE_DAYS = 91


@dataclass(frozen=True)
class Assessment:
    """What a window's change comes to.

    Attributes:
        verdicts: those of the detectors, with their harm.
        harm: what the change costs.
        attribution: why the error changed.
        remedies: what helps, the best first; none if that cannot be told.
        missing: what could not be told, in words; "" if nothing.
    """

    verdicts: list[Verdict]
    harm: Harm | None = None
    attribution: Attribution | None = None
    remedies: Sequence[Remedy] = ()
    missing: str = ""

    def plain(self) -> dict[str, Any]:
        """Return "attribution" (None without one) and "remedies" as a report holds them."""
        told = self.attribution is not None and self.attribution.rows > 0
        whole = {**self.attribution.plain()} if self.attribution is not None and told else None
        if whole is not None and self.harm is not None:
            whole["harm"] = self.harm.plain()
        return {"attribution": whole, "remedies": [one.plain() for one in self.remedies]}


def assess(
    verdicts: list[Verdict], observed: Columns, reference: Reference, window: Window, settings: HarmSettings
) -> Assessment:
    """Return what the verdicts of a window come to.

    The error is held against that of the first weeks that the version did not learn from, on which it was judged: later
    ones may have changed already.

    Args:
        verdicts: of the detectors.
        observed: answered rows of the window and before it.
        reference: the spans' rows and the model that answers.
        window: the window.
        settings: what harm is.
    """
    predict, first = reference.predict, reference.first_untrained
    if predict is None or first is None:
        what = "the model is not asked" if predict is None else "it is not on record what the model was trained on"
        return Assessment(verdicts, missing=f"harm, cause and remedy: {what}")
    hours = np.asarray(reference.columns["hour"])
    until = min(hour_of(window[0]), first + _REFERENCE_DAYS * HOURS_A_DAY)
    known = take(reference.columns, (hours >= first) & (hours < until))
    known["answer"] = predict(known) if len(known["hour"]) else np.zeros(0)
    now = rows_in(observed, window)
    found = attribute(now, known, predict)
    costs = harm.harm_of(found, now)
    history = take(observed, hours_of(observed) <= hour_of(window[1]))
    corrected_by = reference.feedback.settings if reference.feedback is not None else None
    helps = remedies.remedies(found, costs, history, settings, corrected_by)
    missing = "" if found.rows else f"harm, cause and remedy: {found.reason}"
    return Assessment(harm.with_harm(verdicts, found, costs, settings), costs, found, helps, missing)
