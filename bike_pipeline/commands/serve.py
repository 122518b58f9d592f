"""Commands that serve: `serve`, `gateway`, `bench-serving` and what they need; those that ask are in `predict`."""

from __future__ import annotations

import importlib
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bike_pipeline.commands import predict, shared
from bike_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from bike_pipeline.rollout.gateway.api_keys import ApiKey
    from bike_pipeline.rollout.gateway.running import Gateway
    from bike_pipeline.serving.server.app import Server
    from bike_pipeline.settings import Settings

# They are in the same group of commands.
predict_command, predict_batch_command = predict.predict_command, predict.predict_batch_command


@shared.command()
@click.option("--host", help="Address to listen on (serving.server.host).")
@click.option("--rest-port", type=click.IntRange(0, 65_535), help="Port of the REST API; 0: a free one.")
@click.option("--grpc-port", type=click.IntRange(0, 65_535), help="Port of the gRPC API; 0: a free one.")
@click.option("--ui", is_flag=True, default=None, help="A page for people, too, at /ui/ (serving.server.ui).")
@click.option("--openapi", is_flag=True, help="Print the OpenAPI document of the REST API and end.")
@click.option("--json", "as_json", is_flag=True, help="Print where it listens as one line of JSON.")
def serve_command(settings: Settings, openapi: bool, as_json: bool, **given: Any) -> None:
    """Serve the pushed model over TF Serving's own protocols, gRPC and REST, until SIGTERM or Ctrl-C.

    New versions are loaded as they are pushed; no request fails for it. The log is <workspace>/logs/serve.log.
    """
    if openapi:
        from bike_pipeline.serving.server.openapi import document

        click.echo(json.dumps(document(settings), indent=2, ensure_ascii=False))
        return
    import logging

    from bike_pipeline import log_capture
    from bike_pipeline.serving.server import app

    server = settings.serving.server.model_copy(update={k: v for k, v in given.items() if v is not None})
    serving = settings.serving.model_copy(update={"server": server})
    settings = settings.model_copy(update={"serving": serving})
    log = f"serve-{server.label}.log" if server.label else "serve.log"
    with log_capture.captured(settings.logs_path / log) as screen:
        logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
        path = str(settings.logs_path / log)
        app.run(settings, lambda started: click.echo(_addresses(started, settings, path, as_json), file=screen))


def _addresses(started: Server, settings: Settings, log: str, as_json: bool) -> str:
    from bike_pipeline.serving.server.app import address_of

    host, folder = settings.serving.server.host, settings.serving.server.socket_folder
    rest, grpc = address_of(host, started.rest_port), address_of(host, started.grpc_port)
    if folder:
        rest, grpc = f"unix:{folder}/rest.sock", f"unix:{folder}/grpc.sock"
    models = started.versions.models
    name = settings.serving.model_name if settings.serving.model_name in models else next(iter(models))
    model = models[name]
    versions = {str(version.number): version.backends for version in model.available()}
    unproven = {str(one.number): said for one in model.available() if (said := one.loaded.unproven)}
    if as_json:
        found = {"rest": rest, "grpc": grpc, "versions": versions, "not_verified": unproven, "model": name, "log": log}
        found["models"] = {each: [version.number for version in one.available()] for each, one in models.items()}
        return json.dumps(found)
    lines = [
        f"REST  http://{rest}/v1/models/{name}:predict",
        *([f"page  http://{rest}/ui/"] if settings.serving.server.ui else []),
        f"gRPC  {grpc}",
        f"log   {log}",
    ]
    for number, backends in versions.items():
        answering = ", ".join(f"{signature}: {backend}" for signature, backend in backends.items())
        lines.append(f"serving {name} version {number} ({answering})")
        lines.extend(f"version {number} is not verified: {reason}" for reason in unproven.get(number, ()))
    lines.extend([f"and {len(models) - 1} more models"] if len(models) > 1 else [])
    for each, one in models.items():
        of = f" of {each}" if one is not model else ""
        lines.extend(f"version {version.number}{of} cannot be served: {version.error}" for version in one.failed)
    if not versions:
        lines.append(f"no version serves yet; watching {settings.serving_path}")
    return "\n".join(lines)


@shared.command()
@click.option("--host", help="Address to listen on (gateway.host).")
@click.option("--port", type=click.IntRange(0, 65_535), help="Port of REST and gRPC; 0: a free one (gateway.port).")
@click.option(
    "--servers",
    metavar="LABEL=HOST[:REST:GRPC],…",
    help="Servers that run elsewhere, with the ports of both APIs (gateway.servers); by default some are started.",
)
@click.option("--print", "only_print", is_flag=True, help="Print Envoy's configuration as of now, and run nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print where it listens as one line of JSON.")
def gateway_command(
    settings: Settings, servers: str | None, only_print: bool, as_json: bool, **given: str | int | None
) -> None:
    """Route requests to the versions that serve, by Envoy, until SIGTERM or Ctrl-C.

    What is stable, and the share of a canary, a challenger or a shadow, follow the promotion log; no request fails for
    a change. A server is started for each of them, or --servers names some, TF Serving among them. The access log is
    <workspace>/logs/gateway.jsonl.
    """
    import logging

    from bike_pipeline.use_cases import gateway

    changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if servers is not None:
        pairs = [text.partition("=") for text in shared.comma_separated(servers) or ()]
        changes["servers"] = {label.strip(): address.strip() for label, _, address in pairs}
    settings = gateway.with_changes(settings, changes)
    if only_print:
        import yaml

        click.echo(yaml.safe_dump(gateway.configuration(settings), sort_keys=False), nl=False)
        return
    from bike_pipeline.rollout.gateway import running

    if warning := gateway.exposure(settings):
        click.echo(warning, err=True)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    running.run(settings, lambda started: click.echo(_gateway(started, settings, as_json)))


@shared.command()
@click.argument("address", default="127.0.0.1")
@click.option("--protocol", type=click.Choice(["rest", "grpc"]), help="What the server is asked in.")
@click.option("--version", type=int, help="The version that is asked; the newest by default.")
@click.option("--label", default="", help="The version label that is asked.")
@click.option("--connections", type=click.IntRange(1, 10_000), default=64, show_default=True, help="Waiting clients.")
@click.option("--seconds", type=click.IntRange(1, 86_400), default=10, show_default=True, help="How long.")
@click.option("--rate", type=shared.FiniteRange(1), help="Requests a second; as many as it answers if none.")
@click.option("--rows", type=click.IntRange(1, 100_000), default=1, show_default=True, help="Rows in each request.")
@click.option(
    "--generator",
    type=click.Choice(["auto", "wrk", "h2load", "python"]),
    default="auto",
    show_default=True,
    help="What makes the load.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def bench_serving_command(settings: Settings, **options: Any) -> None:
    """Ask the model server at ADDRESS as often as it answers, or at a rate; print requests a second and latencies.

    ADDRESS is a host, host:port, or http://… or grpc://…; this machine where none is given. Nothing else is asked.
    """
    from bike_pipeline.settings import PROJECT_ROOT

    if not (PROJECT_ROOT / "benchmarks" / "load" / "report.py").is_file():
        raise ConfigurationError(
            "the load generators come with the source code, not with the installed package",
            where="bench-serving",
            fix="run it in a clone of the repository, or ask the server with wrk, h2load or ghz",
        )
    sys.path.append(str(PROJECT_ROOT))
    importlib.import_module("benchmarks.load.report").bench(settings, **options)


def _gateway(started: Gateway, settings: Settings, as_json: bool) -> str:
    host = settings.gateway.host
    address = f"[{host}]:{started.port}" if ":" in host else f"{host}:{started.port}"
    tracks = {label: {"version": one.version, "share": one.share} for label, one in started.routed.items()}
    if as_json:
        return json.dumps({"address": address, "tracks": tracks, "access_log": str(settings.gateway_log_file)})
    lines = [
        f"REST        http://{address}/v1/models/{settings.serving.model_name}:predict",
        f"gRPC        {address}",
        f"access log  {settings.gateway_log_file}",
        *(f"{label}: version {one['version']}, {one['share']:g} % of the requests" for label, one in tracks.items()),
    ]
    return "\n".join(lines)


@shared.command()
@click.option(
    "--output", type=shared.FOLDER, default=Path("configs/serving"), show_default=True, help="Folder to write to."
)
@click.option("--check", is_flag=True, help="Write nothing; fail where a file is not what would be written.")
def serving_config_command(settings: Settings, output: Path, check: bool) -> None:
    """Write TF Serving's own configuration files, and the compose.yaml that runs it with exactly these.

    They follow from the settings (serving.configuration). With the version policy `promoted` they follow from what is
    promoted too.
    """
    from bike_pipeline.use_cases.serving import serving_configuration

    files = serving_configuration(settings, output, check=check)
    click.echo(f"{output}: {len(files)} files as the settings give them" if check else "\n".join(map(str, files)))


_COLUMNS = ("key", "name", "state", "created", "not before", "expires")
_MOMENTS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M"]


@click.group()
def api_key_command() -> None:
    """Make, list and revoke API keys of the gateway; only what checks them is kept."""


@api_key_command.command()
@click.argument("name")
@click.option("--days", type=click.IntRange(min=1), help="Days until it expires; without it and --expires: never.")
@click.option("--expires", type=click.DateTime(_MOMENTS), help="When it expires, UTC.")
@click.option("--not-before", type=click.DateTime(_MOMENTS), help="From when on it is let in, UTC; default: now.")
@shared.json_option
@shared.with_settings
def create(settings: Settings, name: str, days: int | None, as_json: bool, **times: datetime | None) -> None:
    """Make a key for NAME and print it, this once only. A running gateway lets it in within a second or two."""
    from bike_pipeline.rollout.gateway import api_keys

    begins, ends = (time and time.replace(tzinfo=UTC) for time in (times["not_before"], times["expires"]))
    if days and ends:
        raise click.UsageError("--days and --expires say the same; give one of them")
    if days:
        ends = (begins or datetime.now(UTC).replace(microsecond=0)) + timedelta(days=days)
    made, key = api_keys.create(settings.gateway_key_file, name, not_before=begins, expires=ends)
    shared.answer({**_document(made), "key": key}, lambda _: key, as_json)
    if as_json:
        return
    until = f"until {made.expires}" if made.expires else "with no end"
    click.echo(f"key {made.id} of {made.name}, {until}; it is not shown again", err=True)
    if "api_keys" not in settings.gateway.authentication.methods:
        click.echo("no gateway asks for it yet: set gateway.authentication.methods=[api_keys]", err=True)


@api_key_command.command("list")
@shared.json_option
@shared.with_settings
def list_keys(settings: Settings, as_json: bool) -> None:
    """List all keys: whose, from when until when."""
    from bike_pipeline.rollout.gateway import api_keys

    path = settings.gateway_key_file
    keys = api_keys.read(path) if path.exists() else ()
    nothing = f"there are no keys in {path}; make one with: bike-pipeline api-key create NAME"
    found = [_document(key) for key in keys]
    shared.answer(found, lambda _: shared.table(_COLUMNS, map(_cells, found)) if found else nothing, as_json)


@api_key_command.command()
@click.argument("key_id", metavar="KEY")
@shared.with_settings
def revoke(settings: Settings, key_id: str) -> None:
    """Revoke the key with this id (see `list`). A running gateway refuses it within a second or two."""
    from bike_pipeline.rollout.gateway import api_keys

    gone = api_keys.revoke(settings.gateway_key_file, key_id)
    click.echo(f"key {gone.id} of {gone.name} was revoked at {gone.revoked}")


def _document(key: ApiKey) -> dict[str, Any]:
    found = {"id": key.id, "name": key.name, "state": key.state(datetime.now(UTC))}
    times = ("created", "not_before", "expires", "revoked")
    return {**found, **{name: getattr(key, name) or None for name in times}}


def _cells(key: dict[str, Any]) -> tuple[str, ...]:
    ends = key["revoked"] or key["expires"] or "never"
    return key["id"], key["name"], key["state"], key["created"], key["not_before"], ends
