"""Whether a version may be used: what speaks against it, and what nothing proves.

Everything that hands out a version's answers asks this first: the embedded server, `predict`, promotions and what goes
to devices. Every byte, every file and the version's number are compared with what was signed; if a version was pushed
before models were signed, with the fingerprints in its push record.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bike_pipeline import features
from bike_pipeline.errors import and_more
from bike_pipeline.model_registry import checksums, layout, model_signature, signing
from bike_pipeline.model_registry.model_signature import Check, Manifest, NoManifestError
from bike_pipeline.model_registry.signing import PublicKey
from bike_pipeline.storage.files import open_files

_SHA256_LENGTH = 64


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
        problems = [f"{c.name}: {c.detail}" for c in found if not c.passed and (required or not c.doubt)]
        unproven = [f"{c.name}: {c.detail}" for c in found if c.doubt]
    elif there:
        gone = layout.SIGNATURE_FILE if layout.EVIDENCE_FILE in there else layout.OLD_MANIFEST_FILE
        problems, unproven = [f"its {gone} was taken away, {', '.join(sorted(there))} is there"], []
    else:
        record = layout.push_record(open_files(folder))
        unproven = ["there is no manifest: it was pushed before models were signed, or the file was taken away"]
        if record is None:
            unproven = ["nothing tells what was pushed: there is neither a manifest nor a push record"]
        problems = [] if record is None else _changes_since(folder, record)
        problems = problems or (unproven if required else [])
    if not problems:
        return Soundness("", tuple(unproven))
    return Soundness(f"{problems[0]}{and_more(problems)}")


def checks(
    folder: Path, trusted: Mapping[str, PublicKey], *, bound: bool = False, evidence: bool = True
) -> list[Check]:
    """Check a pushed folder, or one of its evidence: signature, every byte, no file too many, version, evidence.

    The first releases did not sign the number, so `bound` says whether it must be. What could not be looked at, because
    something before it failed, is a failed check too.
    """
    pushed = any(os.path.lexists(folder / name) for name in (layout.SIGNATURE_FILE, layout.OLD_MANIFEST_FILE))
    listed = not pushed and os.path.lexists(folder / checksums.SUMS_FILE)
    try:
        manifest = (checksums if listed else model_signature).read(folder, trusted)
    except NoManifestError as error:
        return [Check("manifest", passed=False, detail=str(error))]
    files = [Check("files", passed=False, detail=problem) for problem in _wrong_files(folder, manifest)]
    if not files:
        files = [Check("files", passed=True, detail=f"{len(manifest.files)} files as they were pushed")]
    found = [manifest.signature, *files, _version(folder, manifest.version, bound)]
    return [*found, *_evidence_checks(manifest.evidence)] if evidence else found


def evidence_of(folder: Path) -> Mapping[str, Any] | None:
    """Return the evidence in a version's folder, unchecked; None if there is none that can be read."""
    try:
        return model_signature.read(folder, {}).evidence or None
    except NoManifestError:
        return None


def _version(folder: Path, pushed: Any, bound: bool) -> Check:
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


def _wrong_files(folder: Path, manifest: Manifest) -> Iterator[str]:
    promised = manifest.files
    if not promised:
        yield "the manifest names no file"
    there = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*"))}
    for name, path in there.items():
        if name in manifest.own:
            continue
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            yield f"{name} is not a plain file"
        elif path.is_dir():
            if name not in manifest.folders:
                yield f"{name} is a folder that was not pushed"
        elif name not in promised:
            yield f"{name} was not pushed"
        elif model_signature.sha256_of(path) != promised[name]:
            yield f"{name} was changed"
    yield from (f"{name} is gone" for name in promised if name not in there)


def _changes_since(folder: Path, record: Mapping[str, Any]) -> list[str]:
    expected, exports = record.get("fingerprint"), record.get("exports_fingerprint")
    if not expected or layout.fingerprint(folder) != expected:
        return ["the files are not those that were pushed"]
    if isinstance(exports, str) and layout.exports_fingerprint(folder) != exports:
        return ["the exported files are not those that were pushed"]
    return []


def _evidence_checks(evidence: Mapping[str, Any]) -> Iterator[Check]:
    """Yield a check for each piece of evidence (`lineage.queries.evidence`); what is absent never passes."""
    parts = {name: part for name, part in evidence.items() if isinstance(part, dict)}
    packages, seed, missing = parts.get("environment", {}), evidence.get("seed"), ("it is missing", "")
    python = f"Python {packages.get('python')}, TensorFlow {packages.get('tensorflow', '?')}"
    for name, (problem, found) in {
        "data fingerprint": _data(evidence.get("data")),
        "code": _code(parts.get("code", {})),
        "settings": _hash(evidence.get("settings_sha256")) if parts.get("settings") else ("they are missing", ""),
        "schema": _hash(evidence.get("schema_sha256")),
        "seed": ("", str(seed)) if isinstance(seed, int) else missing,
        "environment": ("", python) if packages.get("python") else missing,
        "gates": _gates(parts.get("gates", {})),
        "metrics": _metrics(evidence.get("metrics")),
    }.items():
        yield Check(f"evidence: {name}", passed=not problem, detail=problem or found)


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and len(value) == _SHA256_LENGTH and set(value) <= set("0123456789abcdef")


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


def _code(code: Mapping[str, Any]) -> tuple[str, str]:
    if not _is_sha256(code.get("source_sha256")):
        return "the hash of the source is missing", ""
    commit = f"commit {code['commit'][:12]}" if code.get("commit") else "no commit known"
    dirty = " with changes that were not committed" if code.get("dirty") else ""
    return "", f"{commit}{dirty}, source {code['source_sha256'][:16]}…"


def _gates(gates: Mapping[str, Any]) -> tuple[str, str]:
    decisions = gates.get("decisions")
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
    metric = features.answer_measured(overall or ()).metrics[0]
    error = overall.get(metric) if overall else None
    if not isinstance(error, int | float) or not math.isfinite(error):
        return "the overall metrics are missing", ""
    shown = f"MAE {error:.1f}" if metric == "mae" else f"{metric.replace('_', ' ')} {error:.3f}"
    return "", f"{shown} overall, {len(rows) - 1} slices"
