"""`bike-pipeline verify`: whether a pushed model is what was signed, and whether all evidence for it is there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bike_pipeline.commands.options import json_option, settings_options
from bike_pipeline.commands.output import Parts, answer, table

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings
    from bike_pipeline.use_cases.verification import Verification


@click.command()
@settings_options
@click.option(
    "--public-key",
    "public_keys",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Believe only this public key (PEM); may be given more than once.",
)
@json_option
@click.argument("model", required=False)
def command(settings: Settings, public_keys: tuple[Path, ...], as_json: bool, model: str | None) -> None:
    """Check a pushed MODEL against its signed manifest.

    MODEL is a served version, a model's number as `bike-pipeline models` lists it, or a folder; without it, the version
    that serves. Of a version of this workspace, the outputs of all stages behind it and its spans are checked too. Ends
    with exit code 16 if a byte was changed, a file is too many, or evidence is missing.
    """
    from bike_pipeline.use_cases.verification import verify

    found = verify(settings, model, public_keys)
    answer(found, _view, as_json)
    found.require()


def _view(found: Verification) -> Parts:
    rows = [("✘" if not c.passed else "?" if c.doubt else "✔", c.name, c.detail) for c in found.checks]
    return [found.folder, table(("mark", "check", "detail"), rows, header=False)]
