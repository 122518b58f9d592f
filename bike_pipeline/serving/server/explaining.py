"""Why a served version answers an hour as it does, in words and numbers that add up to the answer.

What `bike-pipeline explain` tells of a request on record, told at once and without shap: the same groups of inputs, the
same words and the same values. A Shapley value is what a group adds on average over all orders in which the groups of
the hour take the place of those of other hours (Shapley 1953; Lundberg and Lee 2017, interventional). Seven groups have
128 coalitions, so all of them are asked and nothing is drawn. Those other hours are some of the published data, since a
server has none of the rows that its model was trained on.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from datetime import date
from functools import cache
from typing import Any

import numpy as np

from bike_pipeline import features
from bike_pipeline.data.embedded_dataset import embedded_bytes
from bike_pipeline.modeling.input_groups import GROUPS, words
from bike_pipeline.serving.server.served_version import ServedVersion
from bike_pipeline.serving.server.tensors import DEFAULT_SIGNATURE, Array
from bike_pipeline.serving.statuses import invalid

# Hours that stand for all others: evenly over two years, and each hour of the day about once.
OTHER_HOURS = 24
_APART = 30 * 24 + 5
# Values are multiples of it, so that they add up to the last bit; answers are float32.
_GRAIN = 2.0**-20


@cache
def other_hours() -> dict[str, Array]:
    """Return the hours that stand for all others, each of shape (OTHER_HOURS,), by input."""
    header, *rows = embedded_bytes().decode().splitlines()
    found = list(csv.DictReader([header, *rows[: OTHER_HOURS * _APART : _APART]]))
    columns = {f.name: np.array([float(row[f.name]) for row in found]) for f in features.REQUIRED_INPUTS}
    columns["day"] = np.array([float(date.fromisoformat(row[features.DATE]).day) for row in found])
    return {name: np.asarray(values) for name, values in features.with_defaults(columns).items()}


def coalitions() -> Array:
    """Return which groups are those of the hour in each coalition, (128, 7) bool: none first, all of them last."""
    count = len(GROUPS)
    return (np.arange(2**count)[:, None] >> np.arange(count)) & 1 > 0


def shapley_values(worth: Array) -> Array:
    """Return the Shapley value of each group, (7,), of what each of `coalitions` answers on average, (128,)."""
    members, count = coalitions(), len(GROUPS)
    # How often, over all orders, a group comes to others of whom there are so many.
    orders = np.array([math.factorial(n) * math.factorial(count - n - 1) for n in range(count)]) / math.factorial(count)
    sizes = members.sum(axis=1, keepdims=True)
    weights = np.where(members, orders[sizes - 1], -orders[np.minimum(sizes, count - 1)])
    return np.asarray(worth @ weights)


async def explanation(version: ServedVersion, row: Mapping[str, float]) -> dict[str, Any]:
    """Return an hour's answer, the mean answer to other hours, and what each group adds, the largest first.

    The base and the parts add up to the answer exactly.

    Args:
        version: what answers; the caller keeps it in memory.
        row: the hour by `features.MODEL_INPUTS`.

    Raises:
        StatusError: the version takes other inputs, has no number for an answer, or too many requests wait.
    """
    found = version.loaded.signatures
    signature = found.get(features.SERVING_ALL_INPUTS) or found.get(DEFAULT_SIGNATURE)
    if signature is None or signature.inputs.keys() - row.keys():
        raise invalid(f"version {version.number} takes no rows of calendar and weather, which could be explained")
    members, others = coalitions(), other_hours()
    columns = {}
    for place, names in enumerate(GROUPS.values()):
        own = np.repeat(members[:, place], OTHER_HOURS)
        for name in names:
            columns[name] = np.where(own, row[name], np.tile(others[name], len(members)))
    batcher = version.batchers.get(signature.name) or await version.batcher(signature)
    asked = {name: columns[name] for name in signature.inputs}
    # Nobody asked about these hours, so that what watches the model does not hear of them.
    outputs = await batcher.in_parts(asked, len(members) * OTHER_HOURS, watched=False)
    answers = np.asarray(outputs[features.answer_among(outputs)], np.float64).reshape(len(members), OTHER_HOURS)
    answer = float(answers[-1, 0])
    if not math.isfinite(answer):
        raise invalid("a value of the hour is no number, so that its answer is none, which nothing adds up to")
    values = [round(float(value) / _GRAIN) * _GRAIN for value in shapley_values(answers.mean(axis=1))]
    parts = sorted(zip(values, GROUPS, strict=True), key=lambda part: -abs(part[0]))
    told = [{"group": name, "words": words(name, row), "value": value} for value, name in parts]
    # What rounding leaves, which is less than anybody sees, belongs to no group.
    return {"version": str(version.number), "answer": answer, "base": answer - math.fsum(values), "parts": told}
