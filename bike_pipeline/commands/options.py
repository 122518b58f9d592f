"""Options that several commands share."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
model_option = click.option(
    "--model",
    metavar="MODEL",
    default=None,
    help="A served version, a model's number or a pushed folder; by default the model that serves now.",
)
cluster_option = click.option("--cluster", is_flag=True, help="Read the cluster's store (kubeflow.metadata).")
formats_option = click.option(
    "--formats",
    metavar="A,B",
    default=None,
    callback=lambda _context, _parameter, text: comma_separated(text),
    help="Formats by name, or all that are known; by default those of exporting.formats.",
)


def comma_separated(text: str | None) -> tuple[str, ...] | None:
    """Return the names of "a, b", each once; None for None."""
    return None if text is None else tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


class FiniteRange(click.FloatRange):
    """A number in a range; NaN, which no range keeps out, and infinity are none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number, or end with what is wrong with it."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


def settings_options(function: Command) -> Command:
    """Add `--config FILE` and repeated `--set KEY=VALUE`, and pass the loaded settings as `settings`.

    The settings are loaded only when the command runs, so that help stays fast.
    """

    @click.option("--config", metavar="FILE", default=None, help="Settings laid over configs/base.yaml.")
    @click.option(
        "--set", "assignments", metavar="KEY=VALUE", multiple=True, help="One setting, such as data.eval_fraction=0.3."
    )
    @functools.wraps(function)
    def with_settings(*args: Any, config: str | None, assignments: tuple[str, ...], **options: Any) -> Any:
        from bike_pipeline.settings import load_settings

        return function(*args, settings=load_settings(config, assignments), **options)

    return with_settings  # type: ignore[return-value]
