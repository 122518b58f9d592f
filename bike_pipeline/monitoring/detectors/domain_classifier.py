"""What no single feature shows: whether a classifier tells the window's rows from those of the reference.

A logistic regression on the features, their squares and products sees what goes with what: of some hundred hours of
weather trees learn more by heart. It is fitted on four fifths of the days and asked of the others, so that it tells
windows apart and not days; the effect is the AUC of these answers above 0.5. Significance is Mann and Whitney's test
over the means of days, since the rows of a day are one observation. Where there is nothing to tell, the AUC is below
0.5, since the days that are held out are missing on their own side (Parker et al. 2007): it errs towards silence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from bike_pipeline.modeling.feedback import HOURS_A_DAY
from bike_pipeline.monitoring.columns import Array, Columns, Window, by_day, by_hour, rows_in
from bike_pipeline.monitoring.detectors.distributions import WEATHER
from bike_pipeline.monitoring.reference import Reference
from bike_pipeline.monitoring.verdicts import Measurement
from bike_pipeline.settings.monitoring import DetectorSettings

FOLDS = 5
FEWEST_DAYS = 4
# The inverse of the penalty: a stronger one sees only what is plain.
PENALTY = 0.01


def measure(
    observed: Columns, reference: Reference, windows: Sequence[Window], settings: DetectorSettings
) -> Iterator[Measurement]:
    """Yield the AUC above 0.5 for the hours of each window."""
    for window in windows:
        compared = reference.of(window)
        now, then = (_hours_of(columns) for columns in (rows_in(observed, window), compared.columns))
        effect, p_value, reason = None, None, f"fewer than {FEWEST_DAYS} days to tell apart"
        if all(len(np.unique(days)) >= FEWEST_DAYS for days, _ in (now, then)):
            auc, p_value = _told_apart(now, then)
            effect = auc - 0.5
            reason = f"a classifier tells its hours from {compared.words} with an AUC of {auc:.2f}"
        yield Measurement(
            "domain_classifier", "data drift", "all features", *window, compared.words, len(now[0]), len(then[0]),
            effect, "AUC above 0.5", settings.separation, p_value, reason,
        )  # fmt: skip


def _hours_of(columns: Columns) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the day and the features of each hour, (hours,) and (hours, features); hours as points of a circle."""
    names = (*WEATHER, "weathersit", "workingday", "hr")
    hours, means = by_hour({"hour": columns["hour"]} | {n: np.nan_to_num(columns[n]) for n in names}, *names)
    angle = means.pop("hr") * (2.0 * np.pi / HOURS_A_DAY)
    return hours // HOURS_A_DAY, np.column_stack([*means.values(), np.sin(angle), np.cos(angle)])


def _told_apart(now: tuple[Array, Array], then: tuple[Array, Array]) -> tuple[float, float]:
    """Return the AUC of answers to held-out days, and the p-value over the means of days."""
    from scipy import stats
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    days = np.concatenate([now[0], then[0]])
    rows, label = np.concatenate([now[1], then[1]]), np.repeat([1.0, 0.0], [len(now[0]), len(then[0])])
    # Days of both sides stand in every fold.
    fold = np.empty(len(days), np.int64)
    for side in (1.0, 0.0):
        _, place = np.unique(days[label == side], return_inverse=True)
        fold[label == side] = np.random.default_rng(int(side)).permutation(place.max() + 1)[place] % FOLDS
    answers = np.empty(len(days))
    for held in range(FOLDS):
        fits, asked = fold != held, fold == held
        classifier = make_pipeline(
            StandardScaler(),
            PolynomialFeatures(2, include_bias=False),
            StandardScaler(),
            LogisticRegression(C=PENALTY, class_weight="balanced", max_iter=300),
        )
        answers[asked] = classifier.fit(rows[fits], label[fits]).decision_function(rows[asked])
    ours, theirs = answers[label == 1.0], answers[label == 0.0]
    auc = stats.mannwhitneyu(ours, theirs).statistic / (len(ours) * len(theirs))
    means = [by_day(days[label == side] * HOURS_A_DAY, answers[label == side])[1] for side in (1.0, 0.0)]
    return float(auc), float(stats.mannwhitneyu(*means, alternative="greater").pvalue)
