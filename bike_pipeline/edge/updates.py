"""How an update comes to a device: a signed channel file, the archive that it names, and the checked folder it becomes.

Imports nothing of this package: it is shipped as it is.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import http.client
import io
import json
import os
import re
import sys
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

FORMAT = 1
# A channel file is a few hundred bytes, a bundle below one MB; what is larger is none of ours.
CHANNEL_LIMIT, BUNDLE_LIMIT = 64 * 1024, 64 * 1024 * 1024
CHUNK = 64 * 1024
ATTEMPTS, SOCKET_SECONDS, DOWNLOAD_SECONDS = 4, 30, 900
_SHA256 = re.compile(r"[0-9a-f]{64}")
# Errors of the disk; all others while a file is fetched are the network's, which another attempt may mend.
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.ENOENT)
MANIFEST, SIGNATURE = "manifest.json", "manifest.json.sig"
MANIFEST_LIMIT, FILES_LIMIT = 1024 * 1024, 1000
# Of golden.json: rows with a number that is not finite, which are answered with NaN. Older bundles have none.
NOT_FINITE = "not_finite"
_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*")


class UpdateError(Exception):
    """What kept a bundle from being taken; the one before stays."""


class RefusedError(UpdateError):
    """This device cannot use the bundle: it is not fetched again until `--retry`."""


def read_key(path: Path) -> Any:
    """Return the ed25519 public key of a PEM file."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise UpdateError(f"{path}: cannot read the public key ({error})") from None
    if not isinstance(key, Ed25519PublicKey):
        raise UpdateError(f"{path}: it holds no ed25519 public key")
    return key


def check_signature(key: Any, content: bytes, signature: bytes, what: str) -> None:
    """Raise an UpdateError if the signature of the content is not the key's."""
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, content)
    except InvalidSignature:
        raise UpdateError(f"{what}: the signature is not that of the key of this device") from None


def read_channel(content: bytes, key: Any) -> dict[str, Any]:
    """Return the signed payload of a channel file."""
    try:
        envelope = json.loads(content)
        text, signature = envelope["payload"].encode(), base64.b64decode(envelope["signature"], validate=True)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UpdateError("channel.json: it is damaged") from None
    check_signature(key, text, signature, "channel.json")
    payload: dict[str, Any] = json.loads(text)
    if payload.get("format") != FORMAT:
        raise UpdateError(f"channel.json: it has format {payload.get('format')}; this program reads format {FORMAT}")
    try:
        bundle = payload["bundle"]
        fits = _SHA256.fullmatch(bundle["sha256"]) and 0 < bundle["size"] <= BUNDLE_LIMIT and payload["sequence"] >= 1
        fits = fits and isinstance(payload["channel"], str) and isinstance(payload["minimum"], dict)
        expires = expires_of(payload)
        fits = fits and (expires is None or expires.tzinfo is not None)
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits:
        raise UpdateError("channel.json: it names no bundle that this program takes")
    return payload


def now() -> datetime:
    """Return what this machine's clock says, with its time zone."""
    return datetime.now(UTC)


def expires_of(payload: dict[str, Any]) -> datetime | None:
    """Return when a channel file expires; None if an earlier release signed it, which set no date."""
    return datetime.fromisoformat(payload["expires"]) if "expires" in payload else None


def check_versions(minimum: dict[str, str]) -> None:
    """Raise an UpdateError if something that the bundle needs is absent or too old here."""
    for name, wanted in minimum.items():
        try:
            found = ".".join(map(str, sys.version_info[:3])) if name == "python" else version(name.replace("_", "-"))
        except PackageNotFoundError:
            raise UpdateError(f"{name} is not installed; pip install {name.replace('_', '-')}") from None
        if _numbers(found) < _numbers(wanted):
            raise UpdateError(f"the bundle needs {name} {wanted} or later, here is {found}")


def _numbers(text: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", text)[:3]]


def download(url: str, target: Path, size: int, sha256: str) -> None:
    """Fetch a file of known size and hash, continuing what a broken connection left in `target`."""
    deadline, problem = time.monotonic() + DOWNLOAD_SECONDS, "it is not complete"
    for attempt in range(ATTEMPTS):
        there = target.stat().st_size if target.exists() else 0
        if there < size:
            time.sleep(0.2 * attempt)
            try:
                _fetch_rest(url, target, there, size, deadline)
            except urllib.error.HTTPError as error:
                problem = str(error)
                if 400 <= error.code < 500 and error.code not in (408, 416, 429):
                    break
            except (http.client.HTTPException, EOFError) as error:
                problem = str(error)
            except OSError as error:
                if error.errno in _OF_THE_DISK:
                    raise
                problem = str(error)
        if target.exists() and target.stat().st_size == size:
            with target.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == sha256:
                    return
            problem = "its SHA-256 is not the signed one"
        if target.exists() and target.stat().st_size >= size:
            target.unlink()
    raise UpdateError(f"{url}: {problem}")


def _fetch_rest(url: str, target: Path, there: int, size: int, deadline: float) -> None:
    request = urllib.request.Request(url, headers={"Range": f"bytes={there}-"} if there else {})  # noqa: S310
    with urllib.request.urlopen(request, timeout=SOCKET_SECONDS) as answer:  # noqa: S310
        goes_on = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {there}-")
        with target.open("ab" if goes_on else "wb") as file:
            length = there if goes_on else 0
            while chunk := answer.read(CHUNK):
                length += len(chunk)
                if length > size:
                    file.truncate(0)
                    raise EOFError("it is larger than was signed")
                if time.monotonic() > deadline:
                    raise TimeoutError(f"not complete after {DOWNLOAD_SECONDS} seconds")
                file.write(chunk)


def address_of(channel: str) -> str:
    """Return the address of a channel's folder, which may be named as a folder of this machine, too."""
    place = channel if "://" in channel else Path(channel).absolute().as_uri()
    return place.rstrip("/").removesuffix("/channel.json")


def fetch_channel(url: str) -> bytes:
    """Return the content of a channel file."""
    if not url.startswith(("http://", "https://", "file:///")):
        raise UpdateError(f"{url}: a channel is at http://, https:// or file:///, or a folder")
    try:
        with urllib.request.urlopen(url, timeout=SOCKET_SECONDS) as answer:  # noqa: S310
            content: bytes = answer.read(CHANNEL_LIMIT + 1)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.reason if type(error) is urllib.error.URLError else error
        raise UpdateError(f"{url}: {reason}") from None
    if len(content) > CHANNEL_LIMIT:
        raise UpdateError(f"{url}: it is larger than {CHANNEL_LIMIT} bytes, so no channel file")
    return content


def read_manifest(content: bytes, signature: bytes, key: Any) -> dict[str, Any]:
    """Return a bundle's manifest, its signature and the names of its files checked."""
    check_signature(key, content, signature, MANIFEST)
    manifest: dict[str, Any] = json.loads(content)
    if manifest.get("format") != FORMAT:
        raise UpdateError(f"{MANIFEST}: it has format {manifest.get('format')}; this program reads format {FORMAT}")
    wrong = [name for name in manifest["files"] if not _FILE_NAME.fullmatch(name) or name in (MANIFEST, SIGNATURE)]
    if wrong or len(manifest["files"]) > FILES_LIMIT:
        raise UpdateError(f"{MANIFEST}: it names files that no bundle has ({', '.join(wrong[:1]) or 'too many'})")
    return manifest


def archive_of(head: Mapping[str, bytes], files: Mapping[str, bytes]) -> bytes:
    """Return the archive of a bundle: the same bytes for the same files, those of `head` first, the others by name."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in (*head.items(), *sorted(files.items())):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            tar.addfile(member, io.BytesIO(content))
    return made.getvalue()


def extract(archive: Path, folder: Path, key: Any) -> None:
    """Unpack a bundle: only plain files that its signed manifest names, with the hashes it promises."""
    try:
        with tarfile.open(archive, "r:") as tar:
            head = {name: _content(tar, tar.next(), name, MANIFEST_LIMIT) for name in (MANIFEST, SIGNATURE)}
            manifest = read_manifest(head[MANIFEST], head[SIGNATURE], key)
            missing = dict(manifest["files"])
            for name, content in head.items():
                write(folder / name, content)
            while member := tar.next():
                promised = missing.pop(member.name, None)
                if promised is None:
                    raise UpdateError(f"the bundle holds {member.name!r}, which its manifest does not name once")
                content = _content(tar, member, member.name, promised["size"])
                if hashlib.sha256(content).hexdigest() != promised["sha256"]:
                    raise UpdateError(f"the bundle's {member.name} is not what its manifest promises")
                write(folder / member.name, content)
    except (tarfile.TarError, EOFError) as error:
        raise UpdateError(f"the bundle is no archive ({error})") from None
    if missing:
        raise UpdateError(f"the bundle lacks {next(iter(missing))}")


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo | None, name: str, limit: int) -> bytes:
    if member is None or member.name != name or member.type != tarfile.REGTYPE or member.size > limit:
        raise UpdateError(f"the bundle's {name} is not the plain file that was promised")
    file = tar.extractfile(member)
    assert file is not None
    return file.read()


def write(path: Path, content: bytes) -> None:
    """Write a file that survives a loss of power; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def verify(folder: Path, key: Any) -> dict[str, Any]:
    """Return the manifest of an unpacked bundle whose every byte is as it was signed."""
    try:
        manifest = read_manifest((folder / MANIFEST).read_bytes(), (folder / SIGNATURE).read_bytes(), key)
        for name, promised in manifest["files"].items():
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != promised["sha256"]:
                raise UpdateError(f"{name} was changed")
    except (OSError, ValueError, KeyError) as error:
        raise UpdateError(f"{folder.name[:12]}: it is damaged ({error})") from None
    return manifest


def verify_release(folder: Path, key: Any) -> None:
    """Check an unpacked bundle, whose folder has the SHA-256 of its archive as its name: signed, and that very bundle.

    Every bundle that was ever signed has a good signature, so an older one in the folder of a newer one has it too.
    """
    manifest = verify(folder, key)
    head = {name: (folder / name).read_bytes() for name in (MANIFEST, SIGNATURE)}
    files = {name: (folder / name).read_bytes() for name in manifest["files"]}
    if hashlib.sha256(archive_of(head, files)).hexdigest() != folder.name:
        raise UpdateError(
            f"{folder.name[:12]}: it holds another bundle, version {manifest['model']['version']} of the model"
        )


def golden_columns(golden: Mapping[str, Any]) -> tuple[dict[str, list[Any]], int]:
    """Return the columns of all rows of golden.json, and how many are sound; behind them stand those that are not."""
    broken = golden.get(NOT_FINITE, {"columns": {}})["columns"]
    columns = {name: [*values, *broken.get(name, [])] for name, values in golden["columns"].items()}
    return columns, min(map(len, golden["columns"].values()))


def answers(contract: Mapping[str, Any], columns: Mapping[str, Any], **model: Any) -> Any:
    """Return a model's float32 answers to rows, on one thread; `model` is `model_path` or `model_content`."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    rows = len(next(iter(columns.values())))
    known = {entry["name"]: [entry["default"]] * rows for entry in contract["inputs"] if "default" in entry}
    known |= columns
    arrays = {entry["name"]: np.asarray(known[entry["name"]], entry["dtype"]) for entry in contract["inputs"]}
    interpreter = Interpreter(num_threads=1, **model)
    found = interpreter.get_signature_runner(contract["signature"])(**arrays)[contract["output"]["name"]]
    return np.asarray(found, np.float32)


def run_golden_rows(folder: Path) -> float:
    """Ask a bundle's model for its golden rows; return the largest difference, relative to max(rentals, 1)."""
    import numpy as np

    manifest, contract, golden = (
        json.loads((folder / name).read_bytes()) for name in (MANIFEST, "feature_contract.json", "golden.json")
    )
    columns, rows = golden_columns(golden)
    if len({len(values) for values in columns.values()}) > 1:
        raise UpdateError("golden.json: its columns differ in their number of rows")
    expected = np.asarray(golden["answers"][manifest["model"]["format"]], np.float64)
    answered = answers(contract, columns, model_path=str(folder / manifest["model"]["file"]))
    answered, broken = answered[:rows], answered[rows:]
    if answered.shape != expected.shape or not len(expected):
        raise UpdateError(f"{answered.shape} answers for {expected.shape} golden rows")
    if not np.isnan(broken).all():
        invented = broken[~np.isnan(broken)][0]
        raise UpdateError(f"the golden rows fail: {invented:.6g} rentals where a value is not finite")
    difference = np.abs(answered - expected) / np.maximum(np.abs(expected), 1.0)
    largest = float(np.where(np.isfinite(difference), difference, np.inf).max())
    if not largest <= manifest["golden"]["max_relative_difference"]:
        raise UpdateError(f"the golden rows fail: the largest relative difference is {largest:.3g}")
    return largest
