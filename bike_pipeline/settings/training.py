"""The model and how it is trained."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from bike_pipeline.settings.section import Count, Positive, Section


class TrainingSettings(Section):
    """The model and how it is trained.

    Attributes:
        epochs: passes over the training rows.
        batch_size: rows a step.
        learning_rate: peak of the schedule (warm-up, then cosine).
        weight_decay: AdamW's decay.
        hidden_units: width of each dense layer of the trunk.
        embedding_dimensions: largest width of a categorical embedding.
        dropout: share of hidden units dropped in training.
        warm_start: begin from the weights of the serving model where its architecture is the same.
    """

    epochs: Count
    batch_size: Count
    learning_rate: Positive
    weight_decay: Annotated[float, Field(ge=0.0)]
    hidden_units: tuple[Count, ...]
    embedding_dimensions: Count
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)]
    warm_start: bool
