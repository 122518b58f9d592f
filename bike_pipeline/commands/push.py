"""`bike-pipeline push`: bring a pushed model to where it is used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from bike_pipeline.commands.options import settings_options
from bike_pipeline.errors import EdgeError, ModelError

if TYPE_CHECKING:
    from bike_pipeline.edge.bundle import Bundle
    from bike_pipeline.edge.channel import Published
    from bike_pipeline.settings import Settings

CHANNELS = ("stable", "beta")


@click.group()
def command() -> None:
    """Push a model to devices."""


@command.command()
@settings_options
@click.option(
    "--channel", type=click.Choice(CHANNELS), default="stable", show_default=True, help="Which devices get it."
)
@click.option("--model", "version", type=int, default=None, help="A pushed version; the promoted one by default.")
@click.option("--force", is_flag=True, help="Push what the edge gate did not bless; the bundle is marked.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the channels, instead of edge.base_path.",
)
@click.option(
    "--sequence",
    type=click.IntRange(min=1),
    default=None,
    help="The channel file's number, where the file of now was lost; devices take none below what they have seen.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def edge(
    settings: Settings,
    channel: str,
    version: int | None,
    force: bool,
    output: Path | None,
    sequence: int | None,
    as_json: bool,
) -> None:
    """Publish a signed bundle of a pushed model to a channel of devices.

    The channel is a folder of static files: serve it with any web server, and let devices run
    `bike-edge update --channel-url URL --key signing.pub --state DIR`.
    """
    from bike_pipeline.log_capture import captured

    # LiteRT tells which delegate it made each time that it loads a model.
    with captured(settings.logs_path / "push.log") as screen:
        published, built = _publish(settings, channel, _folder(settings, version), force, output, sequence)
        if as_json:
            told = {"folder": str(published.folder), "changed": published.changed, **published.payload}
            screen.write(json.dumps(told, indent=2) + "\n")
        else:
            _show(published, built, screen)


def _publish(
    settings: Settings, channel: str, folder: Path, force: bool, output: Path | None, sequence: int | None
) -> tuple[Published, Bundle]:
    from bike_pipeline.edge import bundle, exports
    from bike_pipeline.edge import channel as channels
    from bike_pipeline.model_registry import signing
    from bike_pipeline.use_cases.verification import trusted_keys

    trusted = trusted_keys(settings)
    signer = signing.signer()
    if signer is None:
        raise EdgeError(
            "there is no key to sign with", where="signing.key_file", fix="run the pipeline, which makes one"
        )
    found = exports.read(folder, trusted, force)
    largest = settings.exporting.max_relative_difference
    built = bundle.build(found, settings.serving.model_name, int(folder.name), settings.edge, largest, signer)
    bundle.prove(built, trusted[signer.key_id])
    base = output.expanduser().absolute() if output else settings.edge_path
    return channels.publish(base, channel, built, signer, trusted, settings.edge.valid_days, sequence), built


def _folder(settings: Settings, version: int | None) -> Path:
    from bike_pipeline.model_registry import ModelRegistry

    registry = ModelRegistry(settings.serving_path)
    present = registry.versions()
    promoted = registry.serving() if version is None else version
    if not present or promoted is None:
        raise ModelError("no model is served", where=settings.serving_path, fix="run the pipeline first")
    if version is not None and version not in present:
        raise ModelError(
            f"version {version} is not there",
            where=settings.serving_path,
            fix=f"choose one of {', '.join(map(str, present))}",
        )
    return registry.folder(promoted)


def _show(published: Published, built: Bundle, screen: TextIO) -> None:
    from rich.table import Table

    from bike_pipeline.commands.output import console_on

    payload, manifest = published.payload, built.manifest
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column("what")
    table.add_column("value", overflow="fold")
    table.add_row("channel", f"{payload['channel']}, number {payload['sequence']}")
    table.add_row("model", f"{manifest['model']['name']} version {manifest['model']['version']}")
    table.add_row("serves", manifest["model"]["format"])
    table.add_row("formats", ", ".join([*manifest["formats"], *(["c_source"] if manifest["c_source"] else [])]))
    table.add_row("bundle", f"{payload['bundle']['sha256'][:16]}…, {payload['bundle']['size'] / 1000:,.0f} kB")
    table.add_row(
        "edge gate", "passed" if not manifest["forced"] else f"FORCED: {manifest['edge_gate'].get('reason', '')}"
    )
    table.add_row("folder", str(published.folder))
    console_on(screen).print(table)
    if not published.changed:
        screen.write("nothing changed: the channel names this bundle already\n")
