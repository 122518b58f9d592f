"""Permutation importance: how much of a model's accuracy hangs on each input."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bike_pipeline.storage.plain_json import finite

Columns = Mapping[str, npt.NDArray[Any]]


def permutation_importance(
    predict: Callable[[Columns], npt.NDArray[Any]],
    columns: Columns,
    label: npt.NDArray[Any],
    inputs: Sequence[str],
    repeats: int,
    seed: int,
) -> dict[str, Any]:
    """Return by how much the mean absolute error grows when the values of one input are dealt out anew among the rows.

    Breiman 2001, "Random Forests", section 10, doi 10.1023/A:1010933404324, with the MAE as the error. Every input gets
    the same permutations, so that inputs compare and the result does not hang on their order.

    Args:
        predict: from columns to rentals an hour, shape (rows,).
        columns: one array of shape (rows,) for each input of the model.
        label: rentals, shape (rows,).
        inputs: the inputs to permute.
        repeats: permutations of each.
        seed: seeds the permutations.

    Returns:
        Plain values: "method", "rows", "repeats", "seed", "mae" of the rows as they are, and "inputs", the most
        important first: "name", "mae_increase" (mean over the repeats) and "std", in rentals an hour; None for a number
        that is not finite.
    """
    wanted = np.asarray(label, np.float64)

    def mae(given: Columns) -> float:
        return float(np.abs(predict(given) - wanted).mean())

    generator = np.random.default_rng(seed)
    orders = [generator.permutation(len(wanted)) for _ in range(repeats)]
    usual = mae(columns)
    increases = {n: [mae({**columns, n: columns[n][order]}) - usual for order in orders] for n in inputs}
    means = {name: float(np.mean(found)) for name, found in increases.items()}
    # What is no number comes last.
    ranked = sorted(inputs, key=lambda name: (math.isnan(means[name]), -means[name], name))
    found = [{"name": n, "mae_increase": means[n], "std": float(np.std(increases[n]))} for n in ranked]
    said = {"method": "permutation importance", "rows": len(wanted), "repeats": repeats, "seed": seed, "mae": usual}
    plain: dict[str, Any] = finite({**said, "inputs": found})
    return plain
