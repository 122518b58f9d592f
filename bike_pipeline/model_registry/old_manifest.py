"""Reads what releases up to 0.1 signed: `model_manifest.json`, with a detached ed25519 signature over its bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bike_pipeline.model_registry.layout import OLD_MANIFEST_FILE, OLD_SIGNATURE_FILE
from bike_pipeline.model_registry.manifest import Check, Manifest, NoManifestError, bad_signature, read_file, unsigned

if TYPE_CHECKING:
    from bike_pipeline.model_registry.signing import PublicKey

FORMAT = 1


def read(folder: Path, trusted: Mapping[str, PublicKey]) -> Manifest:
    """Return the manifest of a version's folder."""
    content = read_file(folder / OLD_MANIFEST_FILE)
    try:
        found = json.loads(content)
        known = found["format"] == FORMAT and isinstance(found["files"], dict)
    except (ValueError, KeyError, TypeError):
        raise NoManifestError("it is damaged") from None
    if not known:
        raise NoManifestError(f"it has format {found['format']}; this release reads format {FORMAT}")
    files = {name: entry.get("sha256") if isinstance(entry, dict) else None for name, entry in found["files"].items()}
    signature = _signature(folder, content, str(found.get("key_id", "")), trusted)
    own = (OLD_MANIFEST_FILE, OLD_SIGNATURE_FILE)
    return Manifest(files, found.get("folders") or (), found.get("version"), found, own, signature)


def _signature(folder: Path, content: bytes, named: str, trusted: Mapping[str, Any]) -> Check:
    from cryptography.exceptions import InvalidSignature

    from bike_pipeline.model_registry.signing import ed25519_keys

    try:
        signature = (folder / OLD_SIGNATURE_FILE).read_bytes()
    except OSError:
        return unsigned()
    keys = ed25519_keys(trusted)
    # Which key the manifest names is part of what the signature covers, so every trusted key may be tried.
    for key_id, key in keys.items():
        try:
            key.verify(signature, content)
        except InvalidSignature:
            continue
        return Check("signature", passed=True, detail=f"ed25519, key {key_id[:16]}")
    return bad_signature(named, keys, trusted)
