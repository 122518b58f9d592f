"""Which key signs a pushed model, which public keys are trusted, and whether a signature is required."""

from __future__ import annotations

from bike_pipeline.settings.section import Section


class SigningSettings(Section):
    """Which key signs a pushed model, which public keys are trusted, and whether a signature is required.

    The private key itself never stands in the settings. The variable BIKE_PIPELINE_SIGNING_KEY (the key as PEM text) or
    BIKE_PIPELINE_SIGNING_KEY_FILE (a file) goes before `key_file`.

    Attributes:
        key_file: private key as PEM: ed25519, or on P-256, P-384 or P-521, which signs models and nothing for devices.
            Empty for `<workspace>/keys/signing.pem`, which is made at the first push.
        trusted_keys: files with public keys (PEM) that are trusted, besides those that belong to the key.
        require_signature: whether `serve`, `predict`, `promote`, `rollback`, `verify` and `push edge` refuse a version
            without the signature of a trusted key, or whose signed manifest does not name its version. Without it they
            only say so; what speaks against a version is refused either way.
    """

    key_file: str = ""
    trusted_keys: tuple[str, ...] = ()
    require_signature: bool = False
