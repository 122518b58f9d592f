"""What a device believes: one ed25519 key. Imports nothing of this package but what is shipped with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

FORMAT = 1


class UpdateError(Exception):
    """What kept a bundle from being taken; the one before stays."""


class RefusedError(UpdateError):
    """This device cannot use the bundle: it is not fetched again until `--retry`."""


def read_key(path: Path) -> Any:
    """Return the ed25519 public key of a PEM file."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise UpdateError(f"{path}: cannot read the public key ({error})") from None
    if not isinstance(key, Ed25519PublicKey):
        raise UpdateError(f"{path}: it holds no ed25519 public key")
    return key


def check_signature(key: Any, content: bytes, signature: bytes, what: str) -> None:
    """Raise an UpdateError if the signature of the content is not the key's."""
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, content)
    except InvalidSignature:
        raise UpdateError(f"{what}: the signature is not that of the key of this device") from None
