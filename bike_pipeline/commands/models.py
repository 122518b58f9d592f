"""`bike-pipeline models`: what was trained, blessed and served."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from bike_pipeline.commands.options import settings_options

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings


@click.command()
@settings_options
@click.option("--cluster", is_flag=True, help="Read the cluster's store (kubeflow.metadata).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(settings: Settings, cluster: bool, as_json: bool) -> None:
    """List every trained model, from ML Metadata: its span, its metrics, whether it is blessed, where it is served."""
    from bike_pipeline.model_registry import signing
    from bike_pipeline.use_cases.metadata import lineage_of

    signing.use(settings)
    models = lineage_of(settings, cluster).models("" if cluster else settings.serving_path)
    if as_json:
        click.echo(json.dumps([asdict(model) for model in models], indent=2, default=str))
        return
    from rich.table import Table

    from bike_pipeline.commands.output import METRIC_NAMES, console_on

    table = Table(box=None, pad_edge=False)
    for name in ("model", "trained (UTC)", "span", "blessed", "served as", *METRIC_NAMES.values()):
        table.add_column(name, justify="right" if name in METRIC_NAMES.values() else "left", overflow="fold")
    blessed = {True: "yes", False: "no", None: "not evaluated"}
    for model in models:
        served = "-" if model.served_version is None else str(model.served_version)
        cells = [f"{model.metrics[m]:.3f}" if m in model.metrics else "-" for m in METRIC_NAMES]
        table.add_row(
            str(model.model_id),
            f"{model.trained:%Y-%m-%d %H:%M:%S}",
            f"{model.span} v{model.version}",
            blessed[model.blessed],
            f"{served} (serving)" if model.serving else f"{served} (NOT serving)" if model.wrong else served,
            *cells,
        )
    console_on(sys.stdout).print(table)
    for model in models:
        if model.wrong:
            click.echo(f"version {model.served_version} is promoted and cannot serve: {model.wrong}")
