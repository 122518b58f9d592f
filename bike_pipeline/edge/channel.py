"""A channel of devices: a folder of static files with one signed file that names the current bundle.

`<base>/<channel>/channel.json` is one file, signature included, so that it appears with a single rename; the bundle it
names is complete before. Its sequence grows with each push: a device takes no file that is older than one it has seen.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bike_pipeline.edge.bundle import Bundle
from bike_pipeline.edge.fetching import BUNDLE_LIMIT, read_channel
from bike_pipeline.edge.trust import FORMAT, UpdateError
from bike_pipeline.errors import BusyError, EdgeError, StorageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from bike_pipeline.model_registry.signing import Signer

CHANNEL_FILE = "channel.json"
_LOCK_SECONDS = 30


@dataclass(frozen=True)
class Published:
    """What a push to a channel did.

    Attributes:
        folder: the channel's folder.
        changed: whether devices will find something new.
        payload: what the channel file says.
    """

    folder: Path
    changed: bool
    payload: dict[str, Any]


def current(folder: Path, trusted: Mapping[str, Ed25519PublicKey]) -> dict[str, Any] | None:
    """Return what a channel names now; None where nothing was ever pushed to it.

    Raises:
        EdgeError: its file is damaged or signed with an unknown key; its sequence cannot be gone on from.
    """
    path = folder / CHANNEL_FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"cannot read it ({error.strerror or error})", where=str(path), fix="check it") from None
    problem = "no key is trusted here"
    for key in trusted.values():
        try:
            return read_channel(content, key)
        except UpdateError as error:
            problem = str(error)
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
    sequence: int | None = None,
) -> Published:
    """Make a bundle the current one of a channel; readers see the one before or this one, never a part.

    Args:
        base: folder of the channels.
        channel: name of the channel.
        bundle: what to publish.
        signer: the key that signs.
        trusted: the keys that the file of now may be signed with.
        sequence: the number to give instead of the next one, for a channel whose file was lost or damaged.

    Raises:
        EdgeError: the channel's file of now cannot be gone on from, or the bundle is larger than a device takes.
        BusyError: another push to the channel does not end.
        StorageError: the folder cannot be written.
    """
    if len(bundle.archive) > BUNDLE_LIMIT:
        raise EdgeError(f"the bundle has {len(bundle.archive)} bytes; a device takes {BUNDLE_LIMIT} at most")
    folder = base / channel
    try:
        (folder / "bundles").mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            before = _before(folder, trusted, sequence)
            place = folder / "bundles" / f"{bundle.sha256}.tar"
            if not place.exists() or place.read_bytes() != bundle.archive:
                _write(place, bundle.archive)
            payload = {
                "format": FORMAT,
                "channel": channel,
                "sequence": sequence or (before or {}).get("sequence", 0) + 1,
                "bundle": {"sha256": bundle.sha256, "size": len(bundle.archive)},
                "model": bundle.manifest["model"],
                "forced": bundle.manifest["forced"],
                "minimum": bundle.manifest["minimum"],
            }
            if before and {**before, "sequence": 0} == {**payload, "sequence": 0}:
                return Published(folder, False, before)
            text = json.dumps(payload, sort_keys=True)
            signature = base64.b64encode(signer.sign(text.encode())).decode()
            envelope = {"payload": text, "signature": signature, "key_id": signer.key_id}
            _write(folder / CHANNEL_FILE, (json.dumps(envelope, indent=1) + "\n").encode())
    except OSError as error:
        raise StorageError(
            f"cannot write the channel ({error.strerror or error})",
            where=str(folder),
            fix="free space or grant write permission there, then push again; devices still find what was current",
        ) from None
    return Published(folder, True, payload)


def _before(folder: Path, trusted: Mapping[str, Ed25519PublicKey], sequence: int | None) -> dict[str, Any] | None:
    try:
        before = current(folder, trusted)
    except EdgeError:
        if sequence is None:
            raise
        return None
    if before and sequence is not None and sequence <= before["sequence"]:
        raise EdgeError(
            f"the number {sequence} is not above {before['sequence']}, which devices have seen",
            where=str(folder / CHANNEL_FILE),
            fix="give a higher one, or none",
        )
    return before


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".lock", timeout=_LOCK_SECONDS)
    try:
        lock.acquire()
    except Timeout:
        raise BusyError("another push to this channel is running", where=str(folder), fix="push again later") from None
    try:
        yield
    finally:
        lock.release()


def _write(path: Path, content: bytes) -> None:
    aside = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
