"""Commands for devices: `push edge`, `export-page`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bike_pipeline.commands.shared import FILE, FOLDER, Parts, answer, captured, command, json_option, table

if TYPE_CHECKING:
    from pathlib import Path

    from bike_pipeline.edge.channel import PublishedBundle
    from bike_pipeline.settings import Settings


CHANNELS = ("stable", "beta")


@click.group()
def push_command() -> None:
    """Push a model to devices."""


@command(push_command)
@click.option(
    "--channel", type=click.Choice(CHANNELS), default="stable", show_default=True, help="Which devices get it."
)
@click.option("--model", "version", type=int, help="A pushed version; the promoted one by default.")
@click.option("--force", is_flag=True, help="Push what the edge gate did not bless; the bundle is marked.")
@click.option("--output", type=FOLDER, help="Folder of the channels, instead of edge.base_path.")
@click.option(
    "--sequence",
    type=click.IntRange(min=1),
    help="The channel file's number, if the file of now was lost; devices take none below what they have seen.",
)
@json_option
def edge(settings: Settings, as_json: bool, **options: Any) -> None:
    """Publish a signed bundle of a pushed model to a channel of devices.

    The channel is a folder of static files: serve it with any web server, and let devices run
    `bike-edge update --channel-url URL --key signing.pub --state DIR`.
    """
    from bike_pipeline.use_cases.serving import push_edge

    # LiteRT tells which delegate it made each time that it loads a model.
    with captured(settings.logs_path / "push.log") as screen:
        made = push_edge(settings, **options)
        document = {"folder": made.folder, "changed": made.changed, **made.payload}
        answer(document, lambda _: _view(made), as_json, screen)


def _view(made: PublishedBundle) -> Parts:
    payload, manifest = made.payload, made.manifest
    model, bundle = manifest["model"], payload["bundle"]
    gate = f"FORCED: {manifest['edge_gate'].get('reason', '')}" if manifest["forced"] else "passed"
    rows = [
        ("channel", f"{payload['channel']}, number {payload['sequence']}"),
        ("model", f"{model['name']} version {model['version']}"),
        ("serves", model["format"]),
        ("formats", ", ".join([*manifest["formats"], *(["c_source"] if manifest["c_source"] else [])])),
        ("bundle", f"{bundle['sha256'][:16]}…, {bundle['size'] / 1000:,.0f} kB"),
        ("edge gate", gate),
        ("folder", made.folder),
    ]
    unchanged = [] if made.changed else ["nothing changed: the channel names this bundle already"]
    return [table(("what", "value"), rows, header=False), *unchanged]


@command()
@click.option(
    "--server", default="", metavar="ADDRESS", help="Which server it asks; the one that hands it out if none."
)
@click.argument("output", type=FILE)
def export_page_command(settings: Settings, output: Path, server: str) -> None:
    """Write the page of `serve --ui` into the file OUTPUT, which holds all of it.

    ADDRESS is that of a server of TF Serving's REST API, such as http://192.168.1.7:8501.
    """
    from bike_pipeline.use_cases.page import export_page

    click.echo(export_page(settings, output, server=server))
