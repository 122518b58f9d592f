"""Who signs a pushed model, whose signatures are believed, and whether a model must have one."""

from __future__ import annotations

from bike_pipeline.settings.section import Section


class SigningSettings(Section):
    """Who signs a pushed model, whose signatures are believed, and whether a model must have one.

    The private key itself never stands in the settings. The variable BIKE_PIPELINE_SIGNING_KEY (the key as PEM text) or
    BIKE_PIPELINE_SIGNING_KEY_FILE (a file) goes before `key_file`.

    Attributes:
        key_file: ed25519 private key as PEM; empty for `<workspace>/keys/signing.pem`, which is made at the first push.
        trusted_keys: files with public keys (PEM) that are believed, besides the one that belongs to the key.
        require_signature: whether `serve`, `predict`, `promote`, `rollback`, `verify` and `push edge` refuse a version
            without the signature of a believed key, or whose signed manifest does not name its version. Without it they
            only say so; what speaks against a version is refused either way.
    """

    key_file: str = ""
    trusted_keys: tuple[str, ...] = ()
    require_signature: bool = False
