"""`bike-pipeline verify`: whether a pushed model is what was signed, and whether all evidence for it is there."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bike_pipeline.commands.options import settings_options
from bike_pipeline.errors import ModelError, VerificationError

if TYPE_CHECKING:
    from bike_pipeline.model_registry import version_manifest
    from bike_pipeline.settings import Settings

_DAMAGED = "serve another version, or run the pipeline again, which pushes a damaged model anew"
_ORIGIN = (
    "what serves is as it was pushed; find out what changed the rest, then `bike-pipeline run --no-cache` makes "
    "a model whose evidence is whole"
)
_OTHER_KEY = (
    "nothing else is wrong with it; if that key was used here before, name its public key in signing.trusted_keys or "
    "with --public-key, else do not believe the model"
)


@click.command()
@settings_options
@click.option(
    "--public-key",
    "public_keys",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Believe only this public key (PEM); may be given more than once.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.argument("model", required=False)
def command(settings: Settings, public_keys: tuple[Path, ...], as_json: bool, model: str | None) -> None:
    """Check a pushed MODEL against its signed manifest.

    MODEL is a served version, a model's number as `bike-pipeline models` lists it, or a folder; without it, the version
    that serves. Of a version of this workspace, the outputs of all stages behind it and its spans are checked too. Ends
    with exit code 16 where a byte was changed, a file is too many, or evidence is missing.
    """
    from bike_pipeline.model_registry import signing, version_manifest
    from bike_pipeline.use_cases.verification import trusted_keys

    folder = _folder(settings, model)
    trusted = signing.read_public_keys(public_keys) if public_keys else trusted_keys(settings)
    checks = version_manifest.verify(folder, trusted, bound=settings.signing.require_signature)
    served = [check for check in checks if not check.passed]
    checks += _origin(settings, folder)
    failed = [check for check in checks if not check.passed]
    if as_json:
        result = {"folder": str(folder), "passed": not failed, "checks": [asdict(check) for check in checks]}
        click.echo(json.dumps(result, indent=2))
    else:
        from rich.table import Table

        from bike_pipeline.commands.output import console_on

        click.echo(str(folder))
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column("mark")
        table.add_column("check")
        table.add_column("detail", overflow="fold")
        for check in checks:
            table.add_row("✘" if not check.passed else "?" if check.doubt else "✔", check.name, check.detail)
        console_on(sys.stdout).print(table)
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise VerificationError(
            f"the model is not verified: {failed[0].name}: {failed[0].detail.rstrip('.')}{more}",
            where=str(folder),
            fix=_OTHER_KEY if all(check.other_key for check in failed) else _ORIGIN if not served else _DAMAGED,
        )


def _origin(settings: Settings, folder: Path) -> list[version_manifest.Check]:
    """Return the checks of what a version of this workspace was made of; none where its records are not here."""
    from bike_pipeline.lineage.queries import origin_checks
    from bike_pipeline.model_registry import version_manifest
    from bike_pipeline.use_cases.metadata import lineage_of

    own = str(folder.resolve().parent) == os.path.realpath(settings.serving_path)
    manifest = version_manifest.read(folder) if own else None
    if manifest is None or (settings.metadata.mysql is None and not settings.metadata_file.is_file()):
        return []
    model_id = (manifest.get("model") or {}).get("model_id")
    if not isinstance(model_id, int):
        return []
    return origin_checks.checks_of(lineage_of(settings), model_id, settings.store_uri)


def _folder(settings: Settings, model: str | None) -> Path:
    from bike_pipeline.lineage.queries.model_lookup import chosen_model, pushed_folder
    from bike_pipeline.model_registry import local_copy

    found = pushed_folder(settings.serving_path, model)
    if found is not None:
        return found
    from bike_pipeline.use_cases.metadata import lineage_of

    chosen = chosen_model(lineage_of(settings), settings.serving_path, model)
    if chosen.push is None:
        raise ModelError(f"model {chosen.model_id} was never pushed", fix="`bike-pipeline models` lists what is served")
    return local_copy(chosen.push.destination)
