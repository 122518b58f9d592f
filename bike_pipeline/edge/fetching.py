"""From a channel of static files to a device: the signed channel file, and the archive it names.

Imports nothing of this package but what is shipped with it.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import http.client
import json
import re
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bike_pipeline.edge.trust import FORMAT, UpdateError, check_signature

# A channel file is a few hundred bytes, a bundle below one MB; what is larger is none of ours.
CHANNEL_LIMIT, BUNDLE_LIMIT = 64 * 1024, 64 * 1024 * 1024
CHUNK = 64 * 1024
ATTEMPTS, SOCKET_SECONDS, DOWNLOAD_SECONDS = 4, 30, 900
_SHA256 = re.compile(r"[0-9a-f]{64}")
# Errors of the disk; all others while a file is fetched are the network's, which another attempt may mend.
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.ENOENT)


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
