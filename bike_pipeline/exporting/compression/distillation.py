"""Distillation: a small student learns the blessed model's answers beside the labels.

The teacher's answers carry less noise than the labels, so a student with few weights comes closer to the truth than by
the labels alone (Hinton, Vinyals and Dean 2015, "Distilling the knowledge in a neural network", arXiv 1503.02531; here
for a regression, with the same loss on both targets).
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from bike_pipeline.exporting.compression.material import Teacher
from bike_pipeline.modeling import architectures, training
from bike_pipeline.modeling.distribution import Loss
from bike_pipeline.settings.exporting import DistillationSettings


def loss_of(label: Any, teacher_weight: float) -> Loss:
    """Return the training loss of both targets together.

    Args:
        label: rentals of the training rows, shape (rows,).
        teacher_weight: share of the loss that is taken against the teacher's answers.
    """
    single = training.loss_of(label)

    def loss(target: Any, p: Any) -> Any:
        return (1.0 - teacher_weight) * single(target[:, 0], p) + teacher_weight * single(target[:, 1], p)

    return loss


def train(teacher: Teacher, settings: DistillationSettings, further: dict[str, Any], seed: int) -> keras.Model:
    """Return a student with the blessed model's inputs and output."""
    target = np.stack([teacher.label, teacher.answers()], axis=1)
    training.repeatable(seed)
    # No dropout: a student this small has nothing to spare, and its teacher's answers hold it back from noise.
    student = architectures.build(
        settings.hidden_units, settings.embedding_dimensions, 0.0, float(np.log1p(teacher.label).mean())
    )
    how = {**further, "epochs": settings.epochs, "learning_rate": settings.learning_rate}
    training.fit(student, teacher.inputs, target, how, seed, loss_of(teacher.label, settings.teacher_weight))
    return student
