"""What the evaluation did not judge, and what it saw and may not decide: both are reported."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from bike_pipeline import features
from bike_pipeline.modeling.evaluation import ROWS, Decision, SliceMetrics
from bike_pipeline.modeling.slices import RowsBySlice
from bike_pipeline.settings import EvaluationSettings

COVERAGE = "coverage"


def unjudged(
    settings: EvaluationSettings, candidate: SliceMetrics, trained: RowsBySlice, decisions: Sequence[Decision]
) -> Iterator[Decision]:
    """Yield a decision for every slice of `trained` (what training saw) that no binding limit judges.

    One that the eval split lacks fails unless the settings let it be missing: a model may be as wrong there as it
    likes, and no number would tell.
    """
    judged = {(decision.slicing, decision.slice) for decision in decisions if decision.binding}
    for slicing, values in trained.items():
        may_be_missing = {str(value) for value in settings.may_be_missing.get(slicing, ())}  # type: ignore[call-overload]
        for value in sorted(values, key=int):
            if (slicing, value) in judged:
                continue
            rows = int(candidate.get((slicing, value), {}).get(ROWS, 0))
            fewest = settings.min_rows.get(slicing, 1)  # type: ignore[call-overload]
            binding = False
            if not rows and value in may_be_missing:
                note = "absent from the eval split, as evaluation.may_be_missing allows"
            elif not rows:
                binding = True
                note = (
                    f"absent from the eval split, though training saw {values[value]:,} rows; "
                    "evaluation.may_be_missing does not allow it"
                )
            elif rows < fewest:
                note = f"fewer rows than the {fewest} of evaluation.min_rows"
            else:
                note = "no limit applies"
            yield Decision(COVERAGE, "limits", slicing, value, 0.0, 1.0, math.inf, rows, binding, False, note)


def warnings(
    settings: EvaluationSettings, candidate: SliceMetrics, baseline: SliceMetrics | None, decisions: Sequence[Decision]
) -> list[str]:
    """Return, in words, each slice that is too small to decide and on which the candidate is much worse."""
    found = []
    for decision in decisions:
        if decision.kind != "change" or decision.binding or decision.value <= settings.warn_increase:
            continue
        key = (decision.slicing, decision.slice)
        now, before = (part.get(key, {}).get(decision.metric, math.nan) for part in (candidate, baseline or {}))
        fewest = settings.min_rows.get(decision.slicing, 1)  # type: ignore[call-overload]
        found.append(
            f"{features.slice_name(*key)}: {decision.metric} {now:.1f} against {before:.1f} of the baseline "
            f"({decision.value:+.0%}) on {decision.rows:,} rows; fewer than the {fewest:,} of evaluation.min_rows, so "
            "it does not decide: look at it before you rely on the model there"
        )
    return found
