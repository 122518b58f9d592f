"""`bike-pipeline serve`: the embedded model server."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from bike_pipeline.commands.options import settings_options

if TYPE_CHECKING:
    from bike_pipeline.serving.server.app import Server
    from bike_pipeline.settings import Settings


@click.command()
@settings_options
@click.option("--host", default=None, help="Address to listen on (serving.server.host).")
@click.option("--rest-port", type=click.IntRange(0, 65_535), default=None, help="Port of the REST API; 0: a free one.")
@click.option("--grpc-port", type=click.IntRange(0, 65_535), default=None, help="Port of the gRPC API; 0: a free one.")
@click.option("--openapi", is_flag=True, help="Print the OpenAPI document of the REST API and end.")
@click.option("--json", "as_json", is_flag=True, help="Print where it listens as one line of JSON.")
def command(
    settings: Settings, host: str | None, rest_port: int | None, grpc_port: int | None, openapi: bool, as_json: bool
) -> None:
    """Serve the pushed model over TF Serving's own protocols, gRPC and REST, until SIGTERM or Ctrl-C.

    New versions are loaded as they are pushed; no request fails for it. The log is <workspace>/logs/serve.log.
    """
    if openapi:
        from bike_pipeline.serving.server.openapi import document

        click.echo(json.dumps(document(settings), indent=2, ensure_ascii=False))
        return
    import logging

    from bike_pipeline.log_capture import captured
    from bike_pipeline.serving import security
    from bike_pipeline.serving.server import app

    given = {"host": host, "rest_port": rest_port, "grpc_port": grpc_port}
    server = settings.serving.server.model_copy(update={k: v for k, v in given.items() if v is not None})
    serving = settings.serving.model_copy(update={"server": server})
    settings = settings.model_copy(update={"serving": serving})
    if warning := security.exposure(settings, server.host):
        click.echo(warning, err=True)
    with captured(settings.logs_path / "serve.log") as screen:
        logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
        app.run(settings, lambda started: click.echo(_addresses(started, settings, as_json), file=screen))


def _addresses(started: Server, settings: Settings, as_json: bool) -> str:
    from bike_pipeline.serving.server.app import address_of

    host = settings.serving.server.host
    rest, grpc = address_of(host, started.rest_port), address_of(host, started.grpc_port)
    model = started.versions.models[settings.serving.model_name]
    versions = {str(version.number): version.backends for version in model.available()}
    unproven = {str(one.number): said for one in model.available() if (said := one.loaded.unproven)}
    log = str(settings.logs_path / "serve.log")
    if as_json:
        name = settings.serving.model_name
        found = {"rest": rest, "grpc": grpc, "versions": versions, "not_verified": unproven, "model": name, "log": log}
        return json.dumps(found)
    lines = [
        f"REST  http://{rest}/v1/models/{settings.serving.model_name}:predict",
        f"gRPC  {grpc}",
        f"log   {log}",
    ]
    for number, backends in versions.items():
        answering = ", ".join(f"{name}: {backend}" for name, backend in backends.items())
        lines.append(f"serving {settings.serving.model_name} version {number} ({answering})")
        lines.extend(f"version {number} is not verified: {reason}" for reason in unproven.get(number, ()))
    lines.extend(f"version {version.number} cannot be served: {version.error}" for version in model.failed)
    if not versions:
        lines.append(f"no version serves yet; watching {settings.serving_path}")
    return "\n".join(lines)
