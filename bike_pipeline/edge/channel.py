"""A channel of devices: a folder of static files with one signed file that names the current bundle.

`<base>/<channel>/channel.json` is one file, signature included, so that it appears with a single rename; the bundle it
names is complete before. Its sequence grows with each push: a device takes no file that is older than one it has seen.
It expires, so that a device notices if newer ones are withheld.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bike_pipeline.edge import updates
from bike_pipeline.edge.bundle import Bundle
from bike_pipeline.edge.updates import BUNDLE_LIMIT, FORMAT, UpdateError
from bike_pipeline.errors import BusyError, EdgeError
from bike_pipeline.storage.atomic_files import file_lock, replace_file, storage_error

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from bike_pipeline.model_registry.signing import Signer

CHANNEL_FILE = "channel.json"
_LOCK_SECONDS = 30
# What each push gives anew, whatever it publishes.
_RENEWED = {"sequence": 0, "expires": ""}


@dataclass(frozen=True)
class PublishedBundle:
    """A channel after a push: its folder, whether devices find something new, its file, the bundle's manifest."""

    folder: str
    changed: bool
    payload: dict[str, Any]
    manifest: dict[str, Any]


def current(
    folder: Path, trusted: Mapping[str, Ed25519PublicKey], sequence: int | None = None
) -> dict[str, Any] | None:
    """Return what a channel names now, expired or not; None if nothing was ever pushed to it.

    Raises:
        EdgeError: its file is damaged or signed with an unknown key, so its sequence cannot be continued but by the
            number `sequence`; or that is not above the one that is there.
    """
    path = folder / CHANNEL_FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(error, "read", path) from None
    problem = "no key is trusted here"
    for key in trusted.values():
        try:
            found = updates.read_channel(content, key)
        except UpdateError as error:
            problem = str(error)
            continue
        if sequence is not None and sequence <= found["sequence"]:
            raise EdgeError(
                f"the number {sequence} is not above {found['sequence']}, which devices have seen",
                where=str(path),
                fix="give a higher one, or none",
            )
        return found
    if sequence is not None:
        return None
    raise EdgeError(
        f"its number cannot be gone on from ({problem})",
        where=str(path),
        fix="bring the file back from a copy, name the key that signed it in signing.trusted_keys, or give a number "
        "that no device has seen with --sequence",
    )


def publish(
    base: Path,
    channel: str,
    bundle: Bundle,
    signer: Signer,
    trusted: Mapping[str, Ed25519PublicKey],
    valid_days: float,
    sequence: int | None = None,
) -> PublishedBundle:
    """Make a bundle the current one of a channel; readers see the one before or this one, never a part.

    A bundle that is current already is signed anew once half of its time is over, and left alone before. Devices refuse
    the file after `valid_days`. `trusted` are the keys that may have signed the present one; `sequence` is the number
    to give instead of the next one, if that was lost or damaged.

    Raises:
        EdgeError: the present file's sequence cannot be continued, or the bundle is larger than a device takes.
        BusyError: another push to the channel does not end.
        StorageError: the folder cannot be written; devices find what was current.
    """
    if len(bundle.archive) > BUNDLE_LIMIT:
        raise EdgeError(f"the bundle has {len(bundle.archive)} bytes; a device takes {BUNDLE_LIMIT} at most")
    folder = base / channel
    try:
        (folder / "bundles").mkdir(parents=True, exist_ok=True)
        busy = BusyError("another push to this channel is running", where=str(folder), fix="push again later")
        with file_lock(folder / ".lock", busy, seconds=_LOCK_SECONDS):
            before = current(folder, trusted, sequence)
            place = folder / "bundles" / f"{bundle.sha256}.tar"
            if not place.exists() or place.read_bytes() != bundle.archive:
                replace_file(place, bundle.archive)
            now, valid = updates.now(), timedelta(days=valid_days)
            payload = {
                "format": FORMAT,
                "channel": channel,
                "sequence": sequence or (before or {}).get("sequence", 0) + 1,
                "expires": f"{now + valid:%Y-%m-%dT%H:%M:%SZ}",
                "bundle": {"sha256": bundle.sha256, "size": len(bundle.archive)},
                "model": bundle.manifest["model"],
                "forced": bundle.manifest["forced"],
                "minimum": bundle.manifest["minimum"],
            }
            expires = updates.expires_of(before) if before else None
            left = expires - now if expires else timedelta(0)
            if before and left > valid / 2 and {**payload, **_RENEWED} == {**before, **_RENEWED}:
                return PublishedBundle(str(folder), False, before, bundle.manifest)
            text = json.dumps(payload, sort_keys=True)
            signature = base64.b64encode(signer.sign(text.encode())).decode()
            envelope = {"payload": text, "signature": signature, "key_id": signer.key_id}
            replace_file(folder / CHANNEL_FILE, (json.dumps(envelope, indent=1) + "\n").encode())
    except OSError as error:
        raise storage_error(error, "write", folder) from None
    return PublishedBundle(str(folder), True, payload, bundle.manifest)
