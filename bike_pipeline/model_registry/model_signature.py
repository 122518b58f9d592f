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
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bike_pipeline.model_registry import signing
from bike_pipeline.model_registry.layout import EVIDENCE_FILE, OLD_MANIFEST_FILE, OLD_SIGNATURE_FILE, SIGNATURE_FILE
from bike_pipeline.model_registry.signing import PublicKey, Signer

FORMAT = 2
# Of `model_manifest.json`, which releases up to 0.1 wrote, with a detached ed25519 signature over its bytes.
_OLD_FORMAT = 1
_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"


@dataclass(frozen=True)
class Check:
    """One thing that was checked.

    Attributes:
        name: what was checked: "signature", "files", "evidence: gates", …
        other_key: whether it failed because it was signed with a key that is not trusted here, which is no damage.
        doubt: whether nothing is wrong, and nothing proves it right: a signature that is absent or cannot be checked
            here, a version number that was not signed.
    """

    name: str
    passed: bool
    detail: str
    other_key: bool = False
    doubt: bool = False


@dataclass(frozen=True)
class Manifest:
    """What a version was pushed with.

    Attributes:
        files: SHA-256 by relative path, of every file but the signature's own.
        version: the version number; None if the release that pushed it did not write it down.
        evidence: what speaks for the model; see `lineage.queries.evidence`.
        own: names of the files that hold the signature, which cannot be among `files`.
        signature: outcome of the check of the signature over all this.
    """

    files: Mapping[str, Any]
    folders: Collection[str]
    version: Any
    evidence: Mapping[str, Any]
    own: tuple[str, ...]
    signature: Check


class NoManifestError(Exception):
    """There is no manifest that can be read; the message says why."""


UNSIGNED = Check("signature", passed=False, detail="the manifest is not signed", doubt=True)


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256 as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(folder: Path, evidence: Mapping[str, Any], signer: Signer | None, version: int) -> None:
    """Write the evidence (`lineage.queries.evidence`) and the signature of a folder that is otherwise complete.

    Without a signer the files are listed unsigned. The folder becomes `version` and can pass as no other one.
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
    """Return what was signed of a version's folder, by this release or an earlier one."""
    if os.path.lexists(folder / OLD_MANIFEST_FILE) and not os.path.lexists(folder / SIGNATURE_FILE):
        return _read_old(folder, trusted)
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
    try:
        evidence = json.loads((folder / EVIDENCE_FILE).read_bytes())
    except (OSError, ValueError):
        evidence = {}
    evidence = evidence if isinstance(evidence, dict) else {}
    version, folders = evidence.get("version"), evidence.get("folders")
    if signatures:
        keys = signing.model_keys(trusted, evidence.get("key"))
        # The signature is not over the id in the bundle, so every key is tried. Like the tool: one signature counts,
        # the first.
        made_by = [name for name, key in keys.items() if signing.verifies(key, signatures[0], _encoded(payload))]
        if key_id in made_by:
            detail = f"ECDSA {keys[key_id].curve.name}, key {key_id[:16]}"
            signature = Check("signature", passed=True, detail=detail)
        else:
            signature = _bad_signature(made_by[-1] if made_by else key_id, keys, trusted)
    else:
        signature = UNSIGNED
    return Manifest(
        files, folders if isinstance(folders, list) else (), version, evidence, (SIGNATURE_FILE,), signature
    )


def _read_old(folder: Path, trusted: Mapping[str, PublicKey]) -> Manifest:
    content = read_file(folder / OLD_MANIFEST_FILE)
    try:
        found = json.loads(content)
        known = found["format"] == _OLD_FORMAT and isinstance(found["files"], dict)
    except (ValueError, KeyError, TypeError):
        raise NoManifestError("it is damaged") from None
    if not known:
        raise NoManifestError(f"it has format {found['format']}; this release reads format {_OLD_FORMAT}")
    files = {name: entry.get("sha256") if isinstance(entry, dict) else None for name, entry in found["files"].items()}
    try:
        signature = (folder / OLD_SIGNATURE_FILE).read_bytes()
    except OSError:
        check = UNSIGNED
    else:
        keys = signing.ed25519_keys(trusted)
        # Which key the manifest names is part of what the signature covers, so every trusted key may be tried.
        made_by = next((name for name, key in keys.items() if signing.verifies(key, signature, content)), None)
        check = (
            Check("signature", passed=True, detail=f"ed25519, key {made_by[:16]}")
            if made_by
            else _bad_signature(str(found.get("key_id", "")), keys, trusted)
        )
    own = (OLD_MANIFEST_FILE, OLD_SIGNATURE_FILE)
    return Manifest(files, found.get("folders") or (), found.get("version"), found, own, check)


def read_file(path: Path) -> bytes:
    """Return the content of a manifest or signature; a NoManifestError says why there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise NoManifestError(
            f"there is no {path.name}: it was pushed before models were signed, or the file was taken away"
        ) from None
    except OSError as error:
        raise NoManifestError(f"cannot be read ({error.strerror or error})") from None


def _bad_signature(named: str, keys: Collection[str], trusted: Collection[str]) -> Check:
    """Return the check of a signature that none of `keys` made, though it names one or ""."""
    if not trusted:
        return Check("signature", passed=False, detail="there is no public key to check it with", doubt=True)
    if named in keys or not named:
        return Check("signature", passed=False, detail="damaged: the manifest or its signature was changed")
    known = ", ".join(key_id[:16] for key_id in trusted)
    detail = f"signed with another key: it names the key {named[:16]}, trusted here is {known}"
    return Check("signature", passed=False, detail=detail, other_key=True, doubt=True)
