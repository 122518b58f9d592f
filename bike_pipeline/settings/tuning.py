"""The search for hyperparameters, and what a run takes over from one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from bike_pipeline.settings.section import Count, Section
from bike_pipeline.settings.training import TrainingSettings

# A number or a text, or the whole numbers of a list.
Value = Any | tuple[int, ...]
# They say what, where and from what a model is trained, and not how.
_NOT_TUNED = frozenset({"target", "busy_above", "busy_quantile", "warm_start", "strategy", "workers", "worker_timeout"})


class Dimension(Section):
    """What the setting `name` of the section `training` may be.

    That is from `low` to `high` (whole numbers if both are), or one of `choices`. With `log`, each order of magnitude
    is as likely as the next.
    """

    name: str
    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    choices: tuple[Value, ...] = ()

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.choices:
            if self.low is not None or self.high is not None or self.log:
                raise ValueError("choices stand alone, without low, high and log")
        elif self.low is None or self.high is None or not self.low < self.high:
            raise ValueError("it takes choices, or a low and a high above that")
        elif self.log and self.low <= 0:
            raise ValueError("with log, low must be above 0")
        return self

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that must be valid for all to be: every choice, or both ends."""
        return self.choices or (self.low, self.high)


class TuningSettings(Section):
    """The search for hyperparameters: a random search with a seed, validated inside the training rows.

    Attributes:
        enabled: whether a run searches before it trains; its Trainer takes the best.
        import_best: whether a run's Trainer takes the best of the newest search in this workspace.
        trials: sets of hyperparameters that are tried; the first is that of `training` itself.
        parallel_trials: processes side by side; the result is the same for any number.
        origins: validation windows, one after the other at the end of the training rows; each is predicted by a model
            that was trained on all rows before it.
        validation_share: length of each window, as a share of the training rows.
        objective: the metric, in the mean over the windows, of which the smallest wins; `log_loss` or `brier` for the
            target `busy`, one of the others for `rentals`.
        space: what settings of the section `training` may be.
    """

    enabled: bool
    import_best: bool
    trials: Annotated[int, Field(ge=2)]
    parallel_trials: Count
    origins: Annotated[int, Field(ge=2)]
    validation_share: Annotated[float, Field(gt=0.0, le=0.25)]
    objective: Literal["mae", "rmse", "rmsle", "log_loss", "brier"]
    space: Annotated[tuple[Dimension, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.enabled and self.import_best:
            raise ValueError("enabled searches anew, import_best takes what was found before: choose one")
        if self.origins * self.validation_share > 0.5:
            raise ValueError("origins x validation_share: the windows leave less than half of the rows to train on")
        names = [dimension.name for dimension in self.space]
        if len(set(names)) != len(names):
            raise ValueError("space: the same setting stands there twice")
        return self

    def check(self, training: TrainingSettings) -> None:
        """Raise a ValueError if the space names what is no hyperparameter, or allows what `training` does not."""
        of_busy = self.objective in ("log_loss", "brier")
        if (self.enabled or self.import_best) and of_busy != (training.target == "busy"):
            raise ValueError(f"tuning.objective: {self.objective} is no metric of the target {training.target}")
        tunable = TrainingSettings.model_fields.keys() - _NOT_TUNED
        for dimension in self.space:
            name = dimension.name
            if name not in tunable:
                raise ValueError(f"tuning.space: {name} cannot be tuned; {', '.join(sorted(tunable))} can")
            for value in dimension.ends:
                try:
                    TrainingSettings.model_validate({**training.model_dump(), name: value})
                except ValidationError as error:
                    raise ValueError(f"tuning.space: {name}: {error.errors()[0]['msg']} (got {value})") from None


def decoded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values of Keras Tuner, which knows no lists and holds them as JSON, as the settings have them."""
    return {
        name: json.loads(value) if isinstance(value, str) and value.startswith("[") else value
        for name, value in values.items()
    }


def tuned(training: Mapping[str, Any], hyperparameters: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the section `training`, as plain values, with what a search found: Keras Tuner's config, None for nothing.

    What this release does not take is a pydantic ValidationError.
    """
    if not hyperparameters:
        return dict(training)
    found = {**training, **decoded(hyperparameters["values"])}
    return TrainingSettings.model_validate(found).model_dump(mode="json")
