"""Whether a pushed model is what was signed, and whether all evidence for it is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from bike_pipeline.settings import Settings


def trusted_keys(settings: Settings) -> dict[str, Ed25519PublicKey]:
    """Return the public keys that count if nobody names others: the signing key's own and the settings'."""
    from bike_pipeline.model_registry import signing

    signing.use(settings)
    return signing.trusted_keys()
