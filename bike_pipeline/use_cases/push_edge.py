"""Publish a signed bundle of a pushed model to a channel of devices."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bike_pipeline.errors import EdgeError, ModelError

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings


@dataclass(frozen=True)
class PublishedBundle:
    """A channel after a push: its folder, whether devices find something new, its file, the bundle's manifest."""

    folder: str
    changed: bool
    payload: dict[str, Any]
    manifest: dict[str, Any]


def push_edge(
    settings: Settings,
    channel: str = "stable",
    *,
    version: int | None = None,
    force: bool = False,
    output: Path | None = None,
    sequence: int | None = None,
) -> PublishedBundle:
    """Build a bundle of a pushed version, take it as a device does, and publish it.

    Args:
        settings: the settings.
        channel: which devices get it.
        version: a pushed version; None is the promoted one.
        force: push what the edge gate did not bless; the bundle is marked.
        output: folder of the channels; None is edge.base_path.
        sequence: the channel file's number, if the file of now was lost.

    Raises:
        EdgeError: it is not what was signed, the edge gate refused it, or a device would refuse the bundle.
    """
    from bike_pipeline.edge import bundle, exports
    from bike_pipeline.edge import channel as channels
    from bike_pipeline.lineage.queries.model_lookup import pushed_folder
    from bike_pipeline.model_registry import ModelRegistry, signing
    from bike_pipeline.use_cases.verification import trusted_keys

    folder = pushed_folder(settings.serving_path, None if version is None else str(version))
    if folder is None:
        present = ", ".join(map(str, ModelRegistry(settings.serving_path).versions()))
        fix = f"choose one of {present}" if present else "run the pipeline first"
        raise ModelError(f"version {version} is not there", where=settings.serving_path, fix=fix)
    trusted = trusted_keys(settings)
    signer = signing.signer()
    if signer is None:
        raise EdgeError(
            "there is no key to sign with", where="signing.key_file", fix="run the pipeline, which makes one"
        )
    found = exports.read(folder, trusted, force)
    device_keys = signing.ed25519_keys(trusted)
    largest = settings.exporting.max_relative_difference
    built = bundle.build(found, settings.serving.model_name, int(folder.name), settings.edge, largest, signer)
    bundle.prove(built, device_keys[signer.key_id])
    base = output.expanduser().absolute() if output else settings.edge_path
    published = channels.publish(base, channel, built, signer, device_keys, settings.edge.valid_days, sequence)
    return PublishedBundle(str(published.folder), published.changed, published.payload, built.manifest)
