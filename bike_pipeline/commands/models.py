"""`bike-pipeline models`: what was trained, blessed and served."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bike_pipeline.commands.options import cluster_option, json_option, settings_options
from bike_pipeline.commands.output import BLESSED, METRIC_NAMES, Parts, answer, table

if TYPE_CHECKING:
    from bike_pipeline.lineage.store.entities import ModelRecord
    from bike_pipeline.settings import Settings


@click.command()
@settings_options
@cluster_option
@json_option
def command(settings: Settings, cluster: bool, as_json: bool) -> None:
    """List every trained model, from ML Metadata: its span, its metrics, whether it is blessed, what it serves as."""
    from bike_pipeline.use_cases.lineage import models

    answer(models(settings, cluster=cluster), _view, as_json)


def _view(found: list[ModelRecord]) -> Parts:
    rows = []
    for model in found:
        served = "-" if model.served_version is None else str(model.served_version)
        rows.append(
            (
                model.model_id,
                f"{model.trained:%Y-%m-%d %H:%M:%S}",
                f"{model.span} v{model.version}",
                BLESSED[model.blessed],
                f"{served} (serving)" if model.serving else f"{served} (NOT serving)" if model.wrong else served,
                *(f"{model.metrics[m]:.3f}" if m in model.metrics else "-" for m in METRIC_NAMES),
            )
        )
    names = tuple(METRIC_NAMES.values())
    wrong = [f"version {m.served_version} is promoted and cannot serve: {m.wrong}" for m in found if m.wrong]
    return [table(("model", "trained (UTC)", "span", "blessed", "served as", *names), rows, right=names), *wrong]
