"""The signature of a pushed version, as OpenSSF Model Signing writes and verifies it.

`model.sig` is a Sigstore bundle with a DSSE envelope around an in-toto statement that lists every other file of the
folder with its SHA-256, `evidence.json` with the version number among them. The tool of `pip install model-signing`
verifies it offline, with the public key only:

    model_signing verify key VERSION --signature VERSION/model.sig --public_key keys/model-signing.pub

The format is written and read here with `cryptography` alone: the tool itself would bring thirteen packages and 50 MB
into every server (docs/decisions/0019-model-signing.md). Sources: the predicate is described in model-signing's
`_signing/signing.py`, the envelope in secure-systems-lab/dsse, protocol v1.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bike_pipeline.model_registry.layout import EVIDENCE_FILE, SIGNATURE_FILE
from bike_pipeline.model_registry.manifest import Check, Manifest, NoManifestError, bad_signature, read_file, unsigned

if TYPE_CHECKING:
    from bike_pipeline.model_registry.signing import PublicKey, Signer

FORMAT = 2
_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256 as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(folder: Path, evidence: Mapping[str, Any], signer: Signer | None, version: int) -> None:
    """Write the evidence and the signature of a folder that is otherwise complete.

    Args:
        folder: the folder, under whatever name.
        evidence: what speaks for the model; see `lineage.queries.evidence`.
        signer: the key; None to list the files without a signature.
        version: the version that the folder becomes, so that it can pass as no other one.
    """
    folders = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_dir())
    certificate = signer.certificate() if signer else {}
    own = {**evidence, "format": FORMAT, "version": version, "folders": folders, "key": certificate}
    text = json.dumps(own, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    (folder / EVIDENCE_FILE).write_text(text, encoding="utf-8")
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    resources = [
        {"name": name, "algorithm": "sha256", "digest": sha256_of(path)} for name, path in sorted(files.items())
    ]
    whole = hashlib.sha256(b"".join(bytes.fromhex(entry["digest"]) for entry in resources)).hexdigest()
    hashing = {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": [SIGNATURE_FILE]}
    statement = {
        "_type": _STATEMENT,
        "subject": [{"name": str(version), "digest": {"sha256": whole}}],
        "predicateType": _PREDICATE,
        "predicate": {"serialization": hashing, "resources": resources},
    }
    payload = json.dumps(statement, ensure_ascii=False).encode()
    signatures = [signer.sign_model(_encoded(payload))] if signer else []
    (folder / SIGNATURE_FILE).write_bytes(_bundle(payload, signatures, signer.model_key_id if signer else ""))


def _bundle(payload: bytes, signatures: Sequence[bytes], key_id: str) -> bytes:
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": _PAYLOAD,
        "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""} for signature in signatures],
    }
    material = {"publicKey": {"hint": key_id}, "tlogEntries": []}
    return json.dumps({"mediaType": _BUNDLE, "verificationMaterial": material, "dsseEnvelope": envelope}).encode()


def _encoded(payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding: what the signature is over."""
    return b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD), _PAYLOAD.encode(), len(payload), payload)


def read(folder: Path, trusted: Mapping[str, PublicKey]) -> Manifest:
    """Return what was signed of a version's folder."""
    content = read_file(folder / SIGNATURE_FILE)
    try:
        bundle = json.loads(content)
        envelope = bundle["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"])
        signatures = [base64.b64decode(entry["sig"]) for entry in envelope["signatures"]]
        key_id = str(bundle["verificationMaterial"]["publicKey"]["hint"])
        statement = json.loads(payload)
        kind = (statement["_type"], statement["predicateType"], statement["predicate"]["serialization"]["hash_type"])
        resources = statement["predicate"]["resources"]
        files = {str(entry["name"]): str(entry["digest"]) for entry in resources}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise NoManifestError("it is damaged") from None
    if kind != (_STATEMENT, _PREDICATE, "sha256") or len(files) != len(resources):
        raise NoManifestError("it has a format that this release does not read")
    # What the signature is not over may not differ either.
    if content != _bundle(payload, signatures, key_id):
        raise NoManifestError("it is damaged, or another tool wrote it")
    evidence = read_evidence(folder)
    version, folders = evidence.get("version"), evidence.get("folders")
    signature = _signature(signatures, payload, key_id, trusted, evidence.get("key"))
    return Manifest(
        files, folders if isinstance(folders, list) else (), version, evidence, (SIGNATURE_FILE,), signature
    )


def read_evidence(folder: Path) -> dict[str, Any]:
    """Return the evidence, unchecked; empty if there is none that can be read."""
    try:
        evidence = json.loads((folder / EVIDENCE_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return evidence if isinstance(evidence, dict) else {}


def _signature(
    signatures: list[bytes], payload: bytes, named: str, trusted: Mapping[str, PublicKey], certificate: Any
) -> Check:
    from cryptography.exceptions import InvalidSignature

    from bike_pipeline.model_registry.signing import ecdsa, model_keys

    if not signatures:
        return unsigned()
    keys = model_keys(trusted, certificate)
    # The signature is not over the id in the bundle, so every key is tried.
    for key_id, key in keys.items():
        try:
            # Like the tool: one signature counts, the first.
            key.verify(signatures[0], _encoded(payload), ecdsa(key))
        except InvalidSignature:
            continue
        if key_id == named:
            return Check("signature", passed=True, detail=f"ECDSA {key.curve.name}, key {key_id[:16]}")
        named = key_id
    return bad_signature(named, keys, trusted)
