"""Who signs a pushed model, and whose signatures are believed."""

from __future__ import annotations

from bike_pipeline.settings.section import Section


class SigningSettings(Section):
    """Who signs a pushed model, and whose signatures are believed.

    The private key itself never stands in the settings. The variable BIKE_PIPELINE_SIGNING_KEY (the key as PEM text) or
    BIKE_PIPELINE_SIGNING_KEY_FILE (a file) goes before `key_file`.

    Attributes:
        key_file: ed25519 private key as PEM; empty for `<workspace>/keys/signing.pem`, which is made at the first push.
        trusted_keys: files with public keys (PEM) that `verify` believes, besides the one that belongs to the key.
    """

    key_file: str = ""
    trusted_keys: tuple[str, ...] = ()
