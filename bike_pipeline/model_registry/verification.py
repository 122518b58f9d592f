"""Whether a version may be used: what speaks against it, and what nothing proves.

Everything that hands out a version's answers asks this first: the embedded server, `predict`, promotions and what goes
to devices. Every byte, every file and the version's number are compared with what was signed; if a version was pushed
before models were signed, with the fingerprints in its push record.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bike_pipeline.model_registry import layout, model_signature, old_manifest, signing
from bike_pipeline.model_registry.evidence_checks import evidence_checks
from bike_pipeline.model_registry.manifest import Check, Manifest, NoManifestError
from bike_pipeline.storage.files import open_files

if TYPE_CHECKING:
    from bike_pipeline.model_registry.signing import PublicKey


@dataclass(frozen=True)
class Soundness:
    """What a check of a version found.

    Attributes:
        problem: why it must not be used, in words; "" if nothing speaks against it.
        unproven: what nothing proves, in words: it may be used, and whoever uses it is told.
    """

    problem: str
    unproven: tuple[str, ...] = ()


def verify(folder: Path) -> Soundness:
    """Check a version's local folder, whose name is the version.

    What only lacks proof is a problem if this process must have a signature (`signing.required`).
    """
    required = signing.required()
    there = {name for name in layout.SIGNED_FILES if os.path.lexists(folder / name)}
    if there & {layout.SIGNATURE_FILE, layout.OLD_MANIFEST_FILE}:
        found = checks(folder, signing.trusted_keys(without_own=True), bound=required, evidence=False)
        problems = [_in_words(c) for c in found if not c.passed and (required or not c.doubt)]
        unproven = [_in_words(check) for check in found if check.doubt]
    elif there:
        gone = layout.SIGNATURE_FILE if layout.EVIDENCE_FILE in there else layout.OLD_MANIFEST_FILE
        problems, unproven = [f"its {gone} was taken away, {', '.join(sorted(there))} is there"], []
    else:
        record = layout.push_record(open_files(folder))
        problems, unproven = [] if record is None else _changes_since(folder, record), [_without_manifest(record)]
        problems = problems or (unproven if required else [])
    if not problems:
        return Soundness("", tuple(unproven))
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return Soundness(f"{problems[0]}{more}")


def checks(
    folder: Path, trusted: Mapping[str, PublicKey], *, bound: bool = False, evidence: bool = True
) -> list[Check]:
    """Check a pushed folder: the signature, every byte of every file, no file too many, its version, its evidence.

    Args:
        folder: the version's folder.
        trusted: the trusted public keys by id.
        bound: whether the version's number must be signed; the first releases did not do that.
        evidence: whether the evidence behind the model is checked, too.

    Returns:
        Every check. What could not be looked at, because something before it failed, is a failed check too.
    """
    try:
        manifest = _manifest(folder, trusted)
    except NoManifestError as error:
        return [Check("manifest", passed=False, detail=str(error))]
    found = [manifest.signature, *_files(folder, manifest), _version(folder, manifest.version, bound)]
    return [*found, *evidence_checks(manifest.evidence)] if evidence else found


def _manifest(folder: Path, trusted: Mapping[str, PublicKey]) -> Manifest:
    old = os.path.lexists(folder / layout.OLD_MANIFEST_FILE) and not os.path.lexists(folder / layout.SIGNATURE_FILE)
    return old_manifest.read(folder, trusted) if old else model_signature.read(folder, trusted)


def evidence_of(folder: Path) -> Mapping[str, Any] | None:
    """Return the evidence in a version's folder, unchecked; None if there is none that can be read."""
    try:
        return _manifest(folder, {}).evidence or None
    except NoManifestError:
        return None


def _in_words(check: Check) -> str:
    return f"{check.name}: {check.detail}"


def _version(folder: Path, pushed: Any, bound: bool) -> Check:
    """Compare the version that was pushed with the folder's name."""
    name = folder.absolute().name
    lies_as = int(name) if name.isascii() and name.isdigit() else None
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


def _files(folder: Path, manifest: Manifest) -> list[Check]:
    wrong = list(_wrong_files(folder, manifest.files, manifest.folders, manifest.own))
    if wrong:
        return [Check("files", passed=False, detail=problem) for problem in wrong]
    return [Check("files", passed=True, detail=f"{len(manifest.files)} files as they were pushed")]


def _wrong_files(
    folder: Path, promised: Mapping[str, Any], folders: Collection[str], own: Collection[str]
) -> Iterator[str]:
    if not promised:
        yield "the manifest names no file"
    there = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*"))}
    for name, path in there.items():
        if name in own:
            continue
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            yield f"{name} is not a plain file"
        elif path.is_dir():
            if name not in folders:
                yield f"{name} is a folder that was not pushed"
        elif name not in promised:
            yield f"{name} was not pushed"
        elif model_signature.sha256_of(path) != promised[name]:
            yield f"{name} was changed"
    for name in promised:
        if name not in there:
            yield f"{name} is gone"


def _changes_since(folder: Path, record: Mapping[str, Any]) -> list[str]:
    expected, exports = record.get("fingerprint"), record.get("exports_fingerprint")
    if not expected or layout.fingerprint(folder) != expected:
        return ["the files are not those that were pushed"]
    if isinstance(exports, str) and layout.exports_fingerprint(folder) != exports:
        return ["the exported files are not those that were pushed"]
    return []


def _without_manifest(record: Mapping[str, Any] | None) -> str:
    if record is None:
        return "nothing tells what was pushed: there is neither a manifest nor a push record"
    return "there is no manifest: it was pushed before models were signed, or the file was taken away"
