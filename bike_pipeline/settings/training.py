"""The model and how it is trained."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from bike_pipeline import features
from bike_pipeline.settings.section import Count, Positive, Section

Architecture = Literal["linear", "deep", "trees", "blend"]
Strategy = Literal["none", "mirrored", "multi_worker"]
HolidayName = Literal["other", "thanksgiving", "christmas", "leave", "new_year", "independence", "leave_weekend"]
TargetName = Literal["rentals", "busy"]


class FeedbackSettings(Section):
    """How labels that arrive after training keep a model right; see docs/feedback.md.

    Attributes:
        half_life_days: after which a day's label counts half for the level of all hours.
        group_half_life_days: the same for the level of a kind of hour beside that of all, in days of that kind.
        label_delay_days: how late labels come: those of a day are known so many days after it began.
        quantiles: the quantiles that the model answers, level by name; the lowest and the highest are the interval
            whose coverage is judged.
    """

    half_life_days: Positive
    group_half_life_days: Positive
    label_delay_days: Count
    quantiles: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Annotated[float, Field(gt=0.0, lt=1.0)]]

    @field_validator("quantiles")
    @classmethod
    def _rising(cls, quantiles: dict[str, float]) -> dict[str, float]:
        # On their way to the Trainer mappings are sorted by name.
        rising = dict(sorted(quantiles.items(), key=lambda item: item[1]))
        if len(rising) < 2 or len(set(rising.values())) < len(rising):
            raise ValueError("there must be at least two, no two of one level")
        # Answers stand beside what was asked, by name.
        if taken := sorted(features.BY_NAME.keys() & rising):
            raise ValueError(f"{taken[0]} is the name of a column; give the quantile another")
        return rising


class TrainingSettings(Section):
    """The model and how it is trained.

    Attributes:
        target: what is answered: `rentals`, how many there are in the hour, or `busy`, the probability that there are
            more of them than a threshold; see docs/pipeline.md.
        busy_above: the rentals above which an hour is busy; None for the quantile below.
        busy_quantile: which quantile of the training rows' rentals `busy_above` is, where that is None.
        architecture: the model family, one of `modeling/architectures/`.
        batch_size: rows a step, over all replicas.
        learning_rate: peak of the schedule (warm-up, then cosine).
        weight_decay: AdamW's decay.
        hidden_units: width of each dense layer of the trunk.
        embedding_dimensions: largest width of a categorical embedding.
        dropout: share of hidden units dropped in training.
        tree_rounds: trees of each of the two ensembles.
        tree_depth: most comparisons on the way to a leaf.
        tree_learning_rate: share of each tree's answer that is added.
        holiday_priors: the share of its rentals that a holiday of such a kind leaves a day, as known before the first
            row; rows of the kind count against it, and a kind without a prior leaves a day all of them.
        warm_start: begin from the weights of the serving model's network if it is of the same form; trees are always
            fitted anew.
        strategy: where the steps run: `none` on one device, `mirrored` on every GPU of one machine, `multi_worker` in
            several processes, each with its machine's devices.
        workers: processes of `multi_worker`, if no TF_CONFIG names them.
        worker_timeout: seconds that a worker of `multi_worker` waits for the others before it gives up.
        energy: whether what the training took from the socket is measured, for the model card; it needs the extra
            `energy` (codecarbon).
        feedback: how labels that arrive later keep the model right.
    """

    target: TargetName = "rentals"
    busy_above: Annotated[float, Field(ge=0.0)] | None = None
    busy_quantile: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.75
    architecture: Architecture
    epochs: Count
    batch_size: Count
    learning_rate: Positive
    weight_decay: Annotated[float, Field(ge=0.0)]
    hidden_units: tuple[Count, ...]
    embedding_dimensions: Count
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)]
    tree_rounds: Annotated[int, Field(ge=1, le=1_000)]
    tree_depth: Annotated[int, Field(ge=1, le=8)]
    tree_learning_rate: Annotated[float, Field(gt=0.0, le=1.0)]
    holiday_priors: dict[HolidayName, Positive] = Field(default_factory=dict)
    warm_start: bool
    strategy: Strategy
    workers: Count
    worker_timeout: Positive
    energy: bool
    feedback: FeedbackSettings

    @model_validator(mode="after")
    def _several_workers(self) -> Self:
        if self.strategy == "multi_worker" and self.workers < 2:
            raise ValueError("multi_worker needs at least 2 workers; one worker alone is strategy none")
        return self

    @model_validator(mode="after")
    def _one_device(self) -> Self:
        if self.target != "rentals" and self.strategy != "none":
            raise ValueError(f"the target {self.target} is trained on one device: strategy none")
        return self
