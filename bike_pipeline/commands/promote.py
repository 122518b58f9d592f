"""`bike-pipeline promote`: let a pushed version serve."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from bike_pipeline.commands.options import settings_options
from bike_pipeline.errors import ModelError

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings


@click.command()
@settings_options
@click.option("--label", default="stable", show_default=True, help="The label that the version gets.")
@click.option("--reason", default="", help="Why, for the history.")
@click.option("--json", "as_json", is_flag=True, help="Print the change as JSON; null where there was none to make.")
@click.argument("version", type=int, required=False)
def command(settings: Settings, label: str, reason: str, as_json: bool, version: int | None) -> None:
    """Promote VERSION, the newest pushed one by default: validate it where that was not done, then let it serve.

    A version that does not pass is refused with exit code 20, and what was promoted before still is. The servers of
    serving.promotion.servers are told.
    """
    from bike_pipeline.log_capture import captured
    from bike_pipeline.model_registry import signing, version_folders
    from bike_pipeline.rollout import promotion
    from bike_pipeline.rollout.targets import Followers

    check_label(label)
    signing.use(settings)
    if version is None:
        version = max(version_folders.versions(settings.serving_path), default=None)
    if version is None:
        raise ModelError("nothing is pushed", where=settings.serving_path, fix="run the pipeline: `bike-pipeline run`")
    with captured(settings.logs_path / "promote.log") as screen:
        change = promotion.promote(settings.serving_path, version, Followers.of(settings), label, reason)
        if as_json:
            screen.write(json.dumps(asdict(change) if change else None) + "\n")
        elif change is None:
            screen.write(f"version {version} is {label} already\n")
        else:
            before = "" if change.from_version is None else f" instead of version {change.from_version}"
            screen.write(f"version {version} is {label} now{before}\n")


def check_label(label: str) -> None:
    """Refuse what no server takes for a label.

    Raises:
        ConfigurationError: it is none.
    """
    import re

    from bike_pipeline.errors import ConfigurationError

    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", label):
        raise ConfigurationError(
            f"'{label}' is no label",
            where="--label",
            fix="begin with a letter; letters, digits, '_', '.' and '-' follow",
        )
