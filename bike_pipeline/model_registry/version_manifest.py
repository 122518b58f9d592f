"""The signed manifest of a pushed model: its version, every file with its SHA-256, and what speaks for the model.

`model_manifest.json` lies in the version's folder with a detached ed25519 signature over its very bytes beside it, so
that other tools can check it too: `openssl pkeyutl -verify -pubin -inkey signing.pub -rawin -in model_manifest.json
-sigfile model_manifest.json.sig`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bike_pipeline.model_registry.layout import MANIFEST_FILE, SIGNATURE_FILE

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from bike_pipeline.model_registry.signing import Signer

FORMAT = 1
_SHA256_LENGTH = 64


@dataclass(frozen=True)
class Check:
    """One thing that `verify` looked at.

    Attributes:
        name: what was looked at: "signature", "files", "evidence: gates", …
        passed: whether it is as it must be.
        detail: what was found, in words.
        other_key: whether it failed because the manifest names a key that is not trusted here, which is no damage.
        doubt: whether nothing was found wrong, and nothing that proves it right: a signature that is not there or
            cannot be checked here, a version that the manifest does not name.
    """

    name: str
    passed: bool
    detail: str
    other_key: bool = False
    doubt: bool = False


def write(folder: Path, evidence: Mapping[str, Any], signer: Signer | None, version: int) -> None:
    """Write the manifest of a folder that is otherwise complete, signed where there is a key.

    Args:
        folder: the folder.
        evidence: what speaks for the model; see `lineage.evidence`.
        signer: the key; None where none is configured.
        version: the version that the folder will be, so that it can pass as no other one.

    Raises:
        OSError: it cannot be written.
    """
    files = {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    folders = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_dir())
    signed_by = signer.key_id if signer else ""
    own = {"format": FORMAT, "version": version, "key_id": signed_by, "files": files, "folders": folders}
    manifest = {**evidence, **own}
    content = (json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
    (folder / MANIFEST_FILE).write_bytes(content)
    if signer:
        (folder / SIGNATURE_FILE).write_bytes(signer.sign(content))


def read(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a version's folder, unchecked; None where there is none that can be read."""
    try:
        manifest = json.loads((folder / MANIFEST_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) else None


def verify(folder: Path, trusted: Mapping[str, Ed25519PublicKey], *, bound: bool = False) -> list[Check]:
    """Check a pushed folder: the signature, every byte of every file, no file too many, its version, and all evidence.

    Args:
        folder: the version's folder.
        trusted: the public keys that are believed, by key id.
        bound: whether the manifest must name the version; those of earlier releases do not.

    Returns:
        Every check. What could not be looked at, because something before it failed, is a failed check too.
    """
    try:
        content = (folder / MANIFEST_FILE).read_bytes()
    except FileNotFoundError:
        detail = f"there is no {MANIFEST_FILE}: it was pushed before models were signed, or the file was taken away"
        return [Check("manifest", passed=False, detail=detail)]
    except OSError as error:
        return [Check("manifest", passed=False, detail=f"cannot be read ({error.strerror or error})")]
    try:
        manifest = json.loads(content)
        known = manifest["format"] == FORMAT and isinstance(manifest["files"], dict)
    except (ValueError, KeyError, TypeError):
        return [Check("manifest", passed=False, detail="it is damaged")]
    if not known:
        detail = f"it has format {manifest['format']}; this release reads format {FORMAT}"
        return [Check("manifest", passed=False, detail=detail)]
    return [
        _signature(folder, content, trusted),
        *_files(folder, manifest),
        _version(folder, manifest, bound),
        *_evidence(manifest),
    ]


def _signature(folder: Path, content: bytes, trusted: Mapping[str, Ed25519PublicKey]) -> Check:
    from cryptography.exceptions import InvalidSignature

    try:
        signature = (folder / SIGNATURE_FILE).read_bytes()
    except OSError:
        return Check("signature", passed=False, detail="the manifest is not signed", doubt=True)
    if not trusted:
        return Check("signature", passed=False, detail="there is no public key to check it with", doubt=True)
    # Which key the manifest names is part of what the signature covers, so every trusted key may be tried.
    for key_id, key in trusted.items():
        try:
            key.verify(signature, content)
        except InvalidSignature:
            continue
        return Check("signature", passed=True, detail=f"ed25519, key {key_id[:16]}")
    named = str(json.loads(content).get("key_id", ""))
    if named in trusted or not named:
        return Check("signature", passed=False, detail="damaged: the manifest or its signature was changed")
    known = ", ".join(key_id[:16] for key_id in trusted)
    detail = f"signed with another key: it names the key {named[:16]}, trusted here is {known}"
    return Check("signature", passed=False, detail=detail, other_key=True, doubt=True)


def _version(folder: Path, manifest: Mapping[str, Any], bound: bool) -> Check:
    """Hold the version that was pushed against the one that the folder's name says."""
    name = folder.absolute().name
    pushed, lies_as = manifest.get("version"), int(name) if name.isascii() and name.isdigit() else None
    if pushed is None:
        detail = "the manifest does not bind the version: an earlier release pushed it"
        return Check("version", passed=not bound, detail=detail, doubt=True)
    if not isinstance(pushed, int):
        return Check("version", passed=False, detail="damaged: it is no number")
    if lies_as is None:
        detail = f"it was pushed as version {pushed}, and the folder's name is no version"
        return Check("version", passed=True, detail=detail, doubt=True)
    if pushed != lies_as:
        return Check("version", passed=False, detail=f"it was pushed as version {pushed}, not as version {lies_as}")
    return Check("version", passed=True, detail=f"pushed as version {pushed}")


def _files(folder: Path, manifest: Mapping[str, Any]) -> Iterator[Check]:
    promised = manifest["files"]
    wrong = list(_wrong_files(folder, promised, manifest.get("folders") or ()))
    for problem in wrong:
        yield Check("files", passed=False, detail=problem)
    if not wrong:
        yield Check("files", passed=True, detail=f"{len(promised)} files as they were pushed")


def _wrong_files(folder: Path, promised: Mapping[str, Any], folders: Collection[str]) -> Iterator[str]:
    if not promised:
        yield "the manifest names no file"
    there = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*"))}
    for name, path in there.items():
        if name in (MANIFEST_FILE, SIGNATURE_FILE):
            continue
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            yield f"{name} is not a plain file"
        elif path.is_dir():
            if name not in folders:
                yield f"{name} is a folder that was not pushed"
        elif name not in promised:
            yield f"{name} was not pushed"
        elif not isinstance(promised[name], dict) or _sha256(path) != promised[name].get("sha256"):
            yield f"{name} was changed"
    for name in promised:
        if name not in there:
            yield f"{name} is gone"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and len(value) == _SHA256_LENGTH and set(value) <= set("0123456789abcdef")


def _evidence(manifest: Mapping[str, Any]) -> Iterator[Check]:
    """Check that every piece of evidence is there and speaks for the model; what is absent never passes."""
    for name, problem, found in (
        ("data fingerprint", *_data(manifest.get("data"))),
        ("code", *_code(manifest.get("code"))),
        ("settings", *_settings(manifest)),
        ("schema", *_hash(manifest.get("schema_sha256"))),
        ("seed", "" if isinstance(manifest.get("seed"), int) else "it is missing", str(manifest.get("seed"))),
        ("environment", *_environment(manifest.get("environment"))),
        ("gates", *_gates(manifest.get("gates"))),
        ("metrics", *_metrics(manifest.get("metrics"))),
    ):
        yield Check(f"evidence: {name}", passed=not problem, detail=problem or found)


def _hash(value: Any) -> tuple[str, str]:
    return ("", f"sha256 {value[:16]}…") if _is_sha256(value) else ("its SHA-256 is missing", "")


def _data(window: Any) -> tuple[str, str]:
    if not isinstance(window, list) or not window:
        return "it is missing", ""
    named = []
    for entry in window:
        if not isinstance(entry, dict) or not {"span", "version"} <= entry.keys():
            return "it is damaged", ""
        where = f"span {entry['span']} version {entry['version']}"
        if not _is_sha256(entry.get("content_sha256")) or not _is_sha256(entry.get("manifest_sha256")):
            return f"the hashes of {where} are missing", ""
        named.append(where)
    return "", ", ".join(named)


def _code(code: Any) -> tuple[str, str]:
    if not isinstance(code, dict) or not _is_sha256(code.get("source_sha256")):
        return "the hash of the source is missing", ""
    commit = f"commit {code['commit'][:12]}" if code.get("commit") else "no commit known"
    dirty = " with changes that were not committed" if code.get("dirty") else ""
    return "", f"{commit}{dirty}, source {code['source_sha256'][:16]}…"


def _settings(manifest: Mapping[str, Any]) -> tuple[str, str]:
    if not isinstance(manifest.get("settings"), dict) or not manifest["settings"]:
        return "they are missing", ""
    return _hash(manifest.get("settings_sha256"))


def _environment(packages: Any) -> tuple[str, str]:
    if not isinstance(packages, dict) or not packages.get("python"):
        return "it is missing", ""
    return "", f"Python {packages['python']}, TensorFlow {packages.get('tensorflow', '?')}"


def _gates(gates: Any) -> tuple[str, str]:
    decisions = gates.get("decisions") if isinstance(gates, dict) else None
    if not isinstance(decisions, list) or not decisions:
        return "the decisions are missing", ""
    binding = [entry for entry in decisions if isinstance(entry, dict) and entry.get("binding") is True]
    failed = [entry for entry in binding if entry.get("passed") is not True]
    if not binding or failed or gates.get("blessed") is not True:
        reason = failed[0].get("reason", "") if failed else "nothing binding was decided"
        return f"the model was not blessed ({reason})", ""
    return "", f"blessed by {len(binding)} binding decisions"


def _metrics(metrics: Any) -> tuple[str, str]:
    rows = metrics if isinstance(metrics, list) else []
    overall = next((row for row in rows if isinstance(row, dict) and row.get("slicing") == "overall"), None)
    mae = overall.get("mae") if overall else None
    if not isinstance(mae, int | float) or not math.isfinite(mae):
        return "the overall metrics are missing", ""
    return "", f"MAE {mae:.1f} overall, {len(rows) - 1} slices"
