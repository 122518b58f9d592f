"""What a model answers: the one object that knows of a target how it is learnt, served, measured and named.

Everything else, from the transforms to the Pusher, is the same for all and asks it. Another target is another subclass
here, its name in the setting `training.target` and its limits in the section `evaluation`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Self

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from keras import layers, ops

from bike_pipeline import features
from bike_pipeline.errors import BaselineError, DataError, ModelError
from bike_pipeline.modeling import metrics, objective, probabilities
from bike_pipeline.modeling.answer_layers import LogOdds, LogOfMean, MeanOfLogOdds
from bike_pipeline.modeling.distribution import Loss
from bike_pipeline.modeling.trees import BINARY, LOG, POISSON
from bike_pipeline.settings.training import TargetName
from bike_pipeline.stages import Stage

Array = npt.NDArray[Any]
# In `assets.extra` of a model of another target than rentals, which released models answer without one.
FILE = "target.json"


@dataclass(frozen=True)
class Target:
    """The target `rentals`: how many there are in the hour.

    Attributes:
        name: as the setting has it.
        formulas: every metric, from the sums over rows.
        in_tfma: whether TFMA can measure them by itself, by the classes in `metrics`.
        ratios: of the metrics that are compared with the baseline's, the sum's place, from 1 to 3, and the power of the
            sum's ratio.
        boosted: the objectives that LightGBM fits an ensemble of trees to, each.
        levelled: whether the trees' answers are moved by the label's growth.
        is_corrected: whether labels that arrive later correct its answers (`feedback`).
        prior: how many rows with the mean of all rows each cell of the naive baseline begins with.
        CLASSES: those of a Classify signature, see `classes`; none where there is no such signature.
    """

    name: ClassVar[TargetName] = "rentals"
    formulas: ClassVar[Mapping[str, Callable[[metrics.Sums], float]]] = metrics.FORMULAS
    in_tfma: ClassVar[bool] = True
    ratios: ClassVar[Mapping[str, tuple[int, float]]] = {"mae": (1, 1.0), "rmse": (2, 0.5), "rmsle": (3, 0.5)}
    boosted: ClassVar[tuple[str, ...]] = (POISSON, LOG)
    levelled: ClassVar[bool] = True
    is_corrected: ClassVar[bool] = True
    prior: ClassVar[float] = 0.0
    CLASSES: ClassVar[tuple[str, ...]] = ()

    @property
    def answer(self) -> str:
        """The name of the served output."""
        return features.ANSWERS[self.name].output

    @property
    def unit(self) -> str:
        """The unit of an answer and of its MAE."""
        return features.ANSWERS[self.name].unit

    @property
    def error(self) -> str:
        """The metric that models, slices and the naive baseline are compared by."""
        return features.ANSWERS[self.name].metrics[0]

    @classmethod
    def fit(cls, training: Mapping[str, Any], rentals: Array) -> Self:  # noqa: ARG003 (other targets read them)
        """Return the target that the settings' section describes, for training rows of so many rentals, (rows,)."""
        return cls()

    def decided(self, answers: Callable[[Target], tuple[Array, Array]]) -> Target:  # noqa: ARG002 (as above)
        """Return the target with what is chosen by validation inside the training rows; rentals choose nothing.

        `answers` trains on the earlier rows and returns the rentals of the later ones and the answers to them.
        """
        return self

    def described(self) -> dict[str, Any]:
        """Return name, output, unit and what was fitted, as reports say it."""
        return {"name": self.name, "answer": self.answer, "unit": self.unit, "meaning": self.meaning, **asdict(self)}

    @property
    def meaning(self) -> str:
        """What the model answers, as half a sentence."""
        return "how many bikes are rented in the hour"

    def extra_files(self) -> dict[str, str]:
        """Return what the model's `assets.extra` must hold from which `from_json` reads the target, texts by name."""
        return {}

    def difference_to(self, earlier: Target) -> str:  # noqa: ARG002 (as above)
        """Return in what its question differs from an `earlier` model's of the same name; "" where it does not."""
        return ""

    def label(self, rentals: npt.ArrayLike) -> Array:
        """Return what an answer is compared with, (rows,)."""
        return np.asarray(rentals, np.float64)

    def terms_of(self, rentals: npt.ArrayLike, answers: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return what the sums of `formulas` add up, (sums, rows).

        The first six are n, Σ|p − y|, Σ(p − y)², the sum of one more error, Σy and Σp.
        """
        return metrics.terms_of(rentals, answers)

    def metrics_of(self, sums: metrics.Sums) -> dict[str, float]:
        """Return every metric of `formulas`; NaN if it is not defined."""
        return metrics.metrics_of(sums, self.formulas)

    def naive_error(self, label: Array, answers: Array) -> Array:
        """Return `error` of each row, (rows,), of labels (see `label`) and a naive baseline's answers."""
        errors: Array = np.abs(answers - label)
        return errors

    def head(self, model: keras.Model) -> keras.Model:
        """Return the network to train and serve, of one that answers log(1 + rentals), whose layers it shares."""
        return model

    def loss_of(self, labels: Array) -> Loss:
        """Return the loss for training rows of such labels, see `objective.loss_of`."""
        return objective.loss_of(labels)

    def tree_label(self, levelled: Array) -> Array:
        """Return what trees are fitted to, of 1 + rentals at the level of the end of training, (rows,) each."""
        return levelled

    def mixed(self, shares: tuple[float, ...], largest: float, name: str) -> layers.Layer:
        """Return the layer that makes one answer of those of several models, (batch, models) to (batch,).

        `largest` is the largest log(1 + rentals) that any may answer.
        """
        return LogOfMean(shares, largest, name=name)

    def served(self, output: tf.Tensor) -> tf.Tensor:
        """Return the answer, (batch,) float32, of the model's output."""
        return tf.maximum(tf.exp(output) - 1.0, 0.0)

    def classes(self, answer: tf.Tensor) -> dict[str, tf.Tensor]:  # noqa: ARG002 (as above)
        """Return the outputs of a Classify signature for answers of shape (batch,); a count has none."""
        return {}


RENTALS = Target()


@dataclass(frozen=True)
class Busy(Target):
    """The target `busy`: the probability that an hour has more rentals than a threshold.

    Attributes:
        above: the rentals above which an hour is busy.
        threshold: the probability from which on an hour is called busy.
        chosen_on: how many of the last training rows the threshold was chosen on.
    """

    above: float
    threshold: float = 0.5
    chosen_on: float = 0

    name: ClassVar[TargetName] = "busy"
    formulas: ClassVar[Mapping[str, Callable[[metrics.Sums], float]]] = probabilities.FORMULAS
    in_tfma: ClassVar[bool] = False
    ratios: ClassVar[Mapping[str, tuple[int, float]]] = {"mae": (1, 1.0), "brier": (2, 1.0), "log_loss": (3, 1.0)}
    boosted: ClassVar[tuple[str, ...]] = (BINARY,)
    levelled: ClassVar[bool] = False
    is_corrected: ClassVar[bool] = False
    prior: ClassVar[float] = 1.0
    CLASSES: ClassVar[tuple[str, str]] = ("busy", "not busy")

    @classmethod
    def fit(cls, training: Mapping[str, Any], rentals: Array) -> Self:
        """Return the target with the threshold that the settings name, or the quantile of these rentals.

        A DataError says that no hour, or every one, is busy.
        """
        above = training["busy_above"]
        # Whole rentals, and one of those that occur: no hour then is busy by interpolation.
        quantile = training["busy_quantile"]
        found = float(np.quantile(rentals, quantile, method="lower")) if above is None else float(above)
        share = float((np.asarray(rentals) > found).mean())
        if not 0.0 < share < 1.0:
            raise DataError(
                f"{'every' if share else 'no'} training hour has more than {found:g} rentals: there is nothing to tell",
                where=Stage.TRAINER,
                fix="set training.busy_above to a number of rentals that some hours exceed and others do not",
            )
        return cls(found)

    def decided(self, answers: Callable[[Target], tuple[Array, Array]]) -> Target:
        """Return the target with the threshold of the largest F1 on the later rows."""
        rentals, probability = answers(self)
        threshold = probabilities.best_threshold(self.label(rentals) > 0, probability)
        return type(self)(self.above, threshold, len(rentals))

    @property
    def meaning(self) -> str:
        """What the model answers, as half a sentence."""
        return (
            f"the probability of more than {self.above:g} rentals in the hour, which is called busy from a probability "
            f"of {self.threshold:.3g} on"
        )

    def extra_files(self) -> dict[str, str]:
        """Return the file that `from_json` reads."""
        return {FILE: json.dumps({"name": self.name, **asdict(self)})}

    def difference_to(self, earlier: Target) -> str:
        """Return whether an hour is busy from other rentals on; clients and metrics then mean something else."""
        before = getattr(earlier, "above", self.above)
        if before == self.above:
            return ""
        kept = f"training.busy_above={before:g} keeps the meaning"
        return f"an hour is busy above {self.above:g} rentals, and was above {before:g} so far ({kept})"

    def label(self, rentals: npt.ArrayLike) -> Array:
        """Return 1 for a busy hour and 0 for another."""
        return (np.asarray(rentals) > self.above).astype(np.float64)

    def terms_of(self, rentals: npt.ArrayLike, answers: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return what the sums of `formulas` add up (see `probabilities`)."""
        return probabilities.terms_of(self.label(rentals), answers, self.threshold)

    def naive_error(self, label: Array, answers: Array) -> Array:
        """Return the log loss of each row."""
        return probabilities.log_loss(label, answers)

    def head(self, model: keras.Model) -> keras.Model:
        """Return the network that answers log odds."""
        return keras.Model(model.inputs, LogOdds(self.above, name="log_odds")(model.output), name=model.name)

    def loss_of(self, labels: Array) -> Loss:
        """Return the cross-entropy as a share of that of the base rate, and the auxiliary labels' as for rentals."""
        share = float(self.label(labels.reshape(len(labels), -1)[:, 0]).mean())
        entropy = max(-share * np.log(share) - (1 - share) * np.log1p(-share), 1e-6)

        def cross_entropy(rentals: keras.KerasTensor, odds: keras.KerasTensor) -> keras.KerasTensor:
            is_busy = ops.cast(rentals > self.above, "float32")
            return ops.mean(ops.binary_crossentropy(is_busy, odds, from_logits=True)) / entropy

        return objective.loss_of(labels, cross_entropy)

    def tree_label(self, levelled: Array) -> Array:
        """Return whether the hour would have been busy at the level of the end of training."""
        return (levelled > 1.0 + self.above).astype(np.float64)

    def mixed(self, shares: tuple[float, ...], largest: float, name: str) -> layers.Layer:  # noqa: ARG002 (no count)
        """Return the mean of log odds."""
        return MeanOfLogOdds(shares, name=name)

    def served(self, output: tf.Tensor) -> tf.Tensor:
        """Return the probability."""
        return tf.sigmoid(output)

    def classes(self, answer: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return both classes, (batch, 2), the decided one first; without a name where the probability is NaN."""
        is_busy = tf.expand_dims(answer >= self.threshold, 1)
        labels, scores = tf.constant(self.CLASSES), tf.stack([answer, 1.0 - answer], axis=1)
        ranked = tf.where(is_busy, labels, labels[::-1])
        named = tf.where(tf.expand_dims(tf.math.is_nan(answer), 1), "", ranked)
        return {"classes": named, "scores": tf.where(is_busy, scores, scores[:, ::-1])}


KINDS: dict[str, type[Target]] = {kind.name: kind for kind in (Target, Busy)}


def require_same(serving: str, candidate: str, where: str) -> None:
    """Raise a BaselineError where a serving model and a candidate are of different targets; `where` is who asks.

    Whoever asks the one does not expect the other's answers, so no setting lets one take the other's place.
    """
    if serving != candidate:
        raise BaselineError(
            f"a model of {serving} serves, and the candidate is of {candidate}: neither is the other's baseline",
            where=where,
            fix="serve it beside the other, with a serving.model_name of its own, as configs/busy.yaml does",
        )


def from_json(text: str, where: str) -> Target:
    """Return the target whose `extra_files` hold a text; a ModelError says that it is none, in the file `where`."""
    try:
        stored = json.loads(text)
        kind = KINDS[stored.pop("name")]
        return kind(**{field.name: float(stored[field.name]) for field in fields(kind)})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"what the model answers cannot be read ({type(error).__name__})",
            where=where,
            fix="run again with --no-cache, so that it is trained anew",
        ) from None
