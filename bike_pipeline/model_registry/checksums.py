"""A folder of documents that is signed as a whole: SHA256SUMS lists every other file, SHA256SUMS.sig signs the list.

Whoever has coreutils and OpenSSL 3 verifies it without this product (docs/evidence.md), `verification.checks` here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from bike_pipeline.model_registry import model_signature, signing
from bike_pipeline.model_registry.layout import EVIDENCE_FILE
from bike_pipeline.model_registry.model_signature import Check, Manifest, NoManifestError, sha256_of
from bike_pipeline.model_registry.signing import PublicKey, Signer

SUMS_FILE, SUMS_SIGNATURE_FILE = "SHA256SUMS", "SHA256SUMS.sig"
# As `sha256sum` writes it; a name with a line break or a backslash would need its own quoting, and none has one.
_LINE = re.compile(r"([0-9a-f]{64})  ([^\\\n]+)")


def write(folder: Path, signer: Signer) -> None:
    """Write the list of a folder that is otherwise complete, and its signature."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    content = "".join(f"{sha256_of(folder / name)}  {name}\n" for name in names).encode()
    (folder / SUMS_FILE).write_bytes(content)
    (folder / SUMS_SIGNATURE_FILE).write_bytes(signer.sign_document(content))


def read(folder: Path, trusted: Mapping[str, PublicKey]) -> Manifest:
    """Return what was signed of a folder; its version and its evidence are those of its evidence.json.

    Raises:
        NoManifestError: the list is not there or cannot be read.
    """
    if any((folder / name).is_symlink() for name in (SUMS_FILE, SUMS_SIGNATURE_FILE)):
        raise NoManifestError("it, or its signature, is a link")
    content = model_signature.read_file(folder / SUMS_FILE)
    lines = content.decode(errors="replace").removesuffix("\n").split("\n")
    found = [match.groups() for line in lines if (match := _LINE.fullmatch(line))]
    files = {name: digest for digest, name in found}
    if not files or len(files) != len(lines):
        raise NoManifestError(f"{SUMS_FILE} is damaged")
    folders = {parent.as_posix() for name in files for parent in PurePosixPath(name).parents} - {"."}
    try:
        evidence = json.loads((folder / EVIDENCE_FILE).read_bytes())
    except (OSError, ValueError):
        evidence = {}
    evidence = evidence if isinstance(evidence, dict) else {}
    return Manifest(
        files,
        folders,
        evidence.get("version"),
        evidence,
        (SUMS_FILE, SUMS_SIGNATURE_FILE),
        _signature(folder, content, trusted),
    )


def _signature(folder: Path, content: bytes, trusted: Mapping[str, PublicKey]) -> Check:
    try:
        signature = model_signature.read_file(folder / SUMS_SIGNATURE_FILE)
    except NoManifestError:
        return model_signature.UNSIGNED
    # The file names no key, so every key is tried.
    for key_id, key in trusted.items():
        if signing.verifies(key, signature, content):
            return Check("signature", passed=True, detail=f"{signing.algorithm_of(key)}, key {key_id[:16]}")
    known = ", ".join(key_id[:16] for key_id in trusted) or "none"
    return Check("signature", passed=False, detail=f"damaged, or not made with a key that is trusted here: {known}")
