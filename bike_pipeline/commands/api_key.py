"""`bike-pipeline api-key`: the keys that the embedded server lets in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from bike_pipeline.commands.options import json_option, settings_options
from bike_pipeline.commands.output import answer, table

if TYPE_CHECKING:
    from bike_pipeline.serving.security.api_keys import ApiKey
    from bike_pipeline.settings import Settings

_COLUMNS = ("key", "name", "scopes", "state", "created", "not before", "expires")
_MOMENTS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M"]


@click.group()
def command() -> None:
    """Make, list and revoke API keys of the embedded server; only their hashes are kept."""


@command.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(["predict", "admin"]),
    multiple=True,
    default=["predict"],
    show_default=True,
    help="What the key may ask; repeat it for both.",
)
@click.option("--days", type=click.IntRange(min=1), help="Days until it expires; without it and --expires: never.")
@click.option("--expires", type=click.DateTime(_MOMENTS), help="When it expires, UTC.")
@click.option("--not-before", type=click.DateTime(_MOMENTS), help="From when on it is let in, UTC; default: now.")
@json_option
@settings_options
def create(
    settings: Settings,
    name: str,
    scopes: tuple[str, ...],
    days: int | None,
    expires: datetime | None,
    not_before: datetime | None,
    as_json: bool,
) -> None:
    """Make a key for NAME and print it, this once only. A running server lets it in within a second or two."""
    from bike_pipeline.serving.security import api_keys

    if days and expires:
        raise click.UsageError("--days and --expires say the same; give one of them")
    begins = not_before.replace(tzinfo=UTC) if not_before else None
    ends = expires.replace(tzinfo=UTC) if expires else None
    if days:
        ends = (begins or datetime.now(UTC).replace(microsecond=0)) + timedelta(days=days)
    made, key = api_keys.create(settings.api_key_file, name, scopes, not_before=begins, expires=ends)
    answer({**_document(made), "key": key}, lambda _: key, as_json)
    if as_json:
        return
    until = f"until {made.expires}" if made.expires else "with no end"
    click.echo(f"key {made.id} of {made.name} ({', '.join(made.scopes)}), {until}; it is not shown again", err=True)
    if "api_keys" not in settings.serving.security.authentication.methods:
        click.echo("no server asks for it yet: set serving.security.authentication.methods=[api_keys]", err=True)


@command.command("list")
@json_option
@settings_options
def list_keys(settings: Settings, as_json: bool) -> None:
    """List all keys: whose, what for, from when until when."""
    from bike_pipeline.serving.security import api_keys

    path = settings.api_key_file
    keys = api_keys.read(path).keys if path.exists() else ()
    documents = [_document(key) for key in keys]
    if not keys and not as_json:
        click.echo(f"there are no keys in {path}; make one with: bike-pipeline api-key create NAME")
        return
    answer(documents, lambda found: table(_COLUMNS, map(_cells, found)), as_json)


@command.command()
@click.argument("key_id", metavar="KEY")
@settings_options
def revoke(settings: Settings, key_id: str) -> None:
    """Revoke the key with this id (see `list`). A running server refuses it within a second or two."""
    from bike_pipeline.serving.security import api_keys

    gone = api_keys.revoke(settings.api_key_file, key_id)
    click.echo(f"key {gone.id} of {gone.name} was revoked at {gone.revoked}")


def _document(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "scopes": list(key.scopes),
        "state": key.state(datetime.now(UTC)),
        "created": key.created,
        "not_before": key.not_before,
        "expires": key.expires or None,
        "revoked": key.revoked or None,
    }


def _cells(key: dict[str, Any]) -> tuple[str, ...]:
    ends = key["revoked"] or key["expires"] or "never"
    return key["id"], key["name"], ", ".join(key["scopes"]), key["state"], key["created"], key["not_before"], ends
