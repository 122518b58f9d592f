"""What was promised of a version's folder at its push, and what a check of it found."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Check:
    """One thing that was checked.

    Attributes:
        name: what was checked: "signature", "files", "evidence: gates", …
        passed: whether it is as it must be.
        detail: what was found, in words.
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
        folders: relative paths of all folders.
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


def read_file(path: Path) -> bytes:
    """Return a file's content."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise NoManifestError(
            f"there is no {path.name}: it was pushed before models were signed, or the file was taken away"
        ) from None
    except OSError as error:
        raise NoManifestError(f"cannot be read ({error.strerror or error})") from None


def unsigned() -> Check:
    """Return the check of a signature that is absent."""
    return Check("signature", passed=False, detail="the manifest is not signed", doubt=True)


def bad_signature(named: str, keys: Collection[str], trusted: Collection[str]) -> Check:
    """Return the check of a signature that no trusted key made.

    Args:
        named: id of the key that it claims to be made with; "" if it claims none.
        keys: ids of the keys that were tried.
        trusted: ids of all trusted keys.
    """
    if not trusted:
        return Check("signature", passed=False, detail="there is no public key to check it with", doubt=True)
    if named in keys or not named:
        return Check("signature", passed=False, detail="damaged: the manifest or its signature was changed")
    known = ", ".join(key_id[:16] for key_id in trusted)
    detail = f"signed with another key: it names the key {named[:16]}, trusted here is {known}"
    return Check("signature", passed=False, detail=detail, other_key=True, doubt=True)
