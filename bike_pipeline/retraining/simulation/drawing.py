"""The simulated weeks as a picture: the error of each policy, when it trained, and what happened."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bike_pipeline.retraining.simulation.plan import WEEK_DAYS, Plan
from bike_pipeline.retraining.simulation.policies import ALWAYS, NEVER, THIS, Outcome, Simulated

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {NEVER: "#b0b0b0", ALWAYS: "#e08214", THIS: "#2166ac"}


def draw(of: Simulated, outcomes: Sequence[Outcome], plan: Plan) -> bytes:
    """Return the picture (PNG): mean absolute error by week above, trainings and what happened below."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    first = np.datetime64("2011-01-01")
    for one in outcomes:
        days = [first + WEEK_DAYS * week for week in one.served]
        below.plot([first + WEEK_DAYS * week for week in one.trained], [one.policy] * len(one.trained), "|", color="k")
        if one.policy in _COLOURS:
            errors = [of.scores[model].absolute[week] / of.hours[week] for week, model in one.served.items()]
            above.step(days, errors, where="post", color=_COLOURS[one.policy], label=one.policy)
    below.plot(
        [first + WEEK_DAYS * int(plan.arrivals[week] - 1) for week in plan.poisoned],
        ["poisoned uploads"] * len(plan.poisoned),
        "x",
        color="#b2182b",
    )
    late = [week for week, at in enumerate(plan.arrivals) if at > week + 1 and week not in plan.poisoned]
    below.plot([first + WEEK_DAYS * week for week in late], ["late uploads"] * len(late), ".", color="#777777")
    for name, week in plan.drifts.items():
        _mark(above, name, first + WEEK_DAYS * week)
    above.set_ylabel("MAE, rentals an hour")
    above.legend(frameon=False, loc="upper left")
    below.invert_yaxis()
    below.set_title("trainings, and what happened", fontsize=10)
    for axis in (above, below):
        axis.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def _mark(axis: Axes, name: str, day: np.datetime64) -> None:
    axis.plot([day, day], [0, 1], ":", color="#b2182b", linewidth=0.8, transform=axis.get_xaxis_transform())
    axis.annotate(name, (day, 1.0), xycoords=("data", "axes fraction"), rotation=90, va="top", ha="right", fontsize=8)
