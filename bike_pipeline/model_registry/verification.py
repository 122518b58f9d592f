"""Whether a version may be used: what speaks against it, and what nothing proves.

Everything that hands out a version's answers asks this first: the embedded server, `predict`, promotions and what goes
to devices. Where the version has its manifest, every byte, every file and the version's number are held against it, the
files that answer among them; where it has only its push record, against the fingerprints in that.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bike_pipeline.model_registry import layout, signing, version_manifest

# What `verify` looks at besides is the evidence behind the model.
LOOKED_AT = ("manifest", "signature", "files", "version")


@dataclass(frozen=True)
class Verification:
    """What came of looking at a version.

    Attributes:
        wrong: why it must not be used, in words; "" where nothing speaks against it.
        unproven: what nothing proves, in words: it may be used, and whoever uses it is told.
    """

    problem: str
    unproven: tuple[str, ...] = ()


def verify(folder: Path) -> Verification:
    """Look at a version's local folder, whose name is the version.

    What only lacks proof counts as wrong where this process must have a signature (`signing.required`).

    Raises:
        ConfigurationError: a key that is to be believed cannot be read, or there is none where one is required.
        StorageError: the push record cannot be read.
        OSError: a file cannot be read.
    """
    required = signing.required()
    if os.path.lexists(folder / layout.MANIFEST_FILE):
        checks = version_manifest.verify(folder, signing.trusted_keys(without_own=True), bound=required)
        looked_at = [check for check in checks if check.name in LOOKED_AT]
        wrong = [_said(c) for c in looked_at if not c.passed and (required or not c.doubt)]
        unproven = [_said(check) for check in looked_at if check.doubt]
    elif os.path.lexists(folder / layout.SIGNATURE_FILE):
        wrong, unproven = [f"its {layout.MANIFEST_FILE} was taken away, the signature of it is there"], []
    else:
        record = layout.record_in(folder)
        wrong, unproven = [] if record is None else _changed(folder, record), [_without_manifest(record)]
        wrong = wrong or (unproven if required else [])
    return Verification(f"{wrong[0]}{_more(wrong)}", ()) if wrong else Verification("", tuple(unproven))


def _said(check: version_manifest.Check) -> str:
    return f"{check.name}: {check.detail}"


def _more(wrong: list[str]) -> str:
    return f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""


def _changed(folder: Path, record: dict[str, Any]) -> list[str]:
    expected, exports = record.get("fingerprint"), record.get("exports_fingerprint")
    if not expected or layout.fingerprint(folder) != expected:
        return ["the files are not those that were pushed"]
    if isinstance(exports, str) and layout.exports_fingerprint(folder) != exports:
        return ["the exported files are not those that were pushed"]
    return []


def _without_manifest(record: dict[str, Any] | None) -> str:
    if record is None:
        return "nothing tells what was pushed: there is neither a manifest nor a push record"
    return "there is no manifest: it was pushed before models were signed, or the file was taken away"
