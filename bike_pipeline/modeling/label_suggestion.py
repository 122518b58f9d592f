"""Which hours, once labelled, would teach the model most: query by committee (Seung, Opper and Sompolinsky 1992).

The committee are the model's own trees, each fitted to other draws of the labelled rows (bagging; Abe and Mamitsuka
1998, "Query Learning Strategies Using Boosting and Bagging"). Where its members disagree, the labels that are there do
not decide. Of the hours on which they disagree most, k-means weighted by the disagreement takes one of a kind (Zhdanov
2019, "Diverse mini-batch Active Learning"), so that a suggestion is not many neighbours of one hour.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bike_pipeline import extras, features
from bike_pipeline.modeling import holidays, preprocessing, rows, training
from bike_pipeline.modeling.architectures import trees
from bike_pipeline.modeling.trees import LOG, boosted
from bike_pipeline.modeling.trend import Trend

MEMBERS = 8
# So many times the hours that are wanted are looked at for different kinds. On the first half of the embedded data 10
# and 20 do equally well, 5 and 50 worse.
SHORTLIST = 20


@dataclass(frozen=True)
class Suggestion:
    """What a committee says of candidates, by their place.

    Attributes:
        chosen: places of the suggested candidates, (suggested,), the most telling first.
        score: variance of the members' answers in units of the training loss (see `_in_units_of_loss`), (candidates,).
        rentals: each member's rentals an hour, (members, candidates).
    """

    chosen: npt.NDArray[np.int64]
    score: npt.NDArray[np.float64]
    rentals: npt.NDArray[np.float64]


def suggest(
    labelled: rows.Columns, candidates: rows.Columns, count: int, settings: Mapping[str, Any], seed: int
) -> Suggestion:
    """Return the `count` candidates, or all if there are fewer, whose labels would teach most; repeatable by seed.

    Args:
        labelled: raw columns with the labels (see `preprocessing_fn`), (rows,) each.
        candidates: raw columns without them, (candidates,) each.
        count: hours that are wanted.
        settings: the settings' section `training`, for its trees.
        seed: of the members' draws and of the choice.

    Raises:
        MissingExtraError: scikit-activeml is not installed.
    """
    extras.require("labeling", "suggesting hours to label")
    import sklearn.base
    import threadpoolctl
    from skactiveml.pool import QueryByCommittee
    from skactiveml.regressor import SklearnRegressor
    from sklearn.ensemble import BaggingRegressor

    learnt = preprocessing.LearntSums.of(labelled).learnt()
    inputs, labels = training.split_labels(preprocessing.transformed_columns(labelled, learnt))
    unknown = dict.fromkeys(features.LABELS, np.zeros(rows.count(candidates), np.float32))
    asked, _ = training.split_labels(preprocessing.transformed_columns({**candidates, **unknown}, learnt))
    trend = Trend.fit(inputs, labels, holidays.priors(settings))
    target = (1.0 + labels[:, 0]) * trees.growth_of(trend, inputs)
    variance, mean = max(float(np.log1p(labels[:, 0]).var()), 1e-6), float(target.mean())

    class Member(sklearn.base.RegressorMixin, sklearn.base.BaseEstimator):
        def __init__(self, random_state: int | None = None) -> None:
            self.random_state = random_state

        def fit(self, matrix: Any, logarithm: Any) -> Member:
            how = settings["tree_rounds"], settings["tree_depth"], settings["tree_learning_rate"]
            matrix = np.asarray(matrix, np.float32)
            self.booster_ = boosted(matrix, np.exp(logarithm), LOG, *how, self.random_state or 0)
            return self

        def predict(self, matrix: Any) -> Any:
            return _in_units_of_loss(np.asarray(self.booster_.predict(matrix)), variance, mean)

    committee = SklearnRegressor(BaggingRegressor(Member(), n_estimators=MEMBERS, random_state=seed))
    columns, asked_columns = trees.columns_of(trend, inputs), trees.columns_of(trend, asked)
    committee.fit(columns, np.log(target))
    query = QueryByCommittee(random_state=seed)
    _, (score,) = query.query(
        columns, np.log(target), committee, fit_ensemble=False, candidates=asked_columns, return_utilities=True
    )
    kinds = np.hstack(
        [
            asked[preprocessing.DENSE],
            asked[preprocessing.TIME_OF_YEAR],
            np.eye(preprocessing.DAY_TYPES)[asked["day_type"]],
        ]
    )
    # Threads add in an order of their own.
    with threadpoolctl.threadpool_limits(1):
        chosen = _one_of_each_kind(kinds, score, count, seed)
    members = np.stack([np.exp(member.booster_.predict(asked_columns)) for member in committee.estimators_])
    rentals = np.maximum(members / trees.growth_of(trend, asked) - 1.0, 0.0)
    return Suggestion(chosen, score, rentals)


def _in_units_of_loss(logarithm: npt.NDArray[Any], variance: float, mean: float) -> npt.NDArray[np.float64]:
    """Return a scale g of log(1 + rentals) on which equal distances cost the training loss the same.

    To second order, being wrong by d costs d² (1/variance + rentals/(2 mean)) / 2 (see `objective.loss_of`), so g' is
    the root of that sum: g = 2s + r log((s - r)/(s + r)) with r² = 1/variance and s² = r² + exp(logarithm)/(2 mean).
    """
    r = variance**-0.5
    more = np.exp(np.asarray(logarithm, np.float64)) / (2.0 * mean)
    s = np.sqrt(r**2 + more)
    # s - r = more / (s + r), without the loss of a difference.
    found: npt.NDArray[np.float64] = 2.0 * s + r * np.log(more / (s + r) ** 2)
    return found


def _one_of_each_kind(
    kinds: npt.NDArray[Any], score: npt.NDArray[np.float64], count: int, seed: int
) -> npt.NDArray[np.int64]:
    """Return the places of `count` rows of high score and unlike `kinds`, (rows, columns), the highest score first."""
    from sklearn.cluster import KMeans

    best: npt.NDArray[np.int64] = np.argsort(-score, kind="stable")[: SHORTLIST * count]
    if len(best) <= count:
        return best
    # Where members agree everywhere, each hour weighs the same.
    clusters = KMeans(count, n_init=1, random_state=seed).fit(kinds[best], sample_weight=score[best] + 1e-12)
    distance = np.linalg.norm(kinds[best] - clusters.cluster_centers_[clusters.labels_], axis=1)
    order = np.lexsort((distance, clusters.labels_))
    chosen = order[np.unique(clusters.labels_[order], return_index=True)[1]]
    # Rows that are all alike make fewer clusters.
    rest = np.setdiff1d(np.arange(len(best)), chosen)[: count - len(chosen)]
    found: npt.NDArray[np.int64] = best[np.sort(np.concatenate([chosen, rest]))]
    return found
