"""API keys: random, kept only as hashes, several at once, each with scopes, a beginning and an end."""

from __future__ import annotations

import functools
import hashlib
import hmac
import json
import math
import re
import secrets
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bike_pipeline.errors import BusyError, ConfigurationError
from bike_pipeline.serving.security import SCOPES, Client
from bike_pipeline.storage.atomic_files import FOREVER, file_lock, one_error, replace_file

# Where a key stands in a leaked log or repository, secret scanners find it by this.
PREFIX = "bike_"
# 256 bits from the system's generator: nobody guesses one, so that a fast hash is enough (NIST SP 800-63B, 5.1.2.2).
_KEY_BYTES = 32
_LAYOUT = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")


@dataclass(frozen=True)
class ApiKey:
    """One key, without the key itself.

    Attributes:
        id: names the key in lists and logs; eight hexadecimal digits.
        sha256: SHA-256 of the file's salt and the key, hexadecimal; empty once it is revoked.
        created: when it was made, ISO 8601, UTC, as all times.
        not_before: from when on it is let in.
        expires: until when; empty for no end.
        revoked: when it was revoked; empty for not.
    """

    id: str
    name: str
    scopes: tuple[str, ...]
    sha256: str
    created: str
    not_before: str
    expires: str = ""
    revoked: str = ""

    def state(self, now: datetime) -> str:
        """Return `active`, `revoked`, `expired` or `not yet valid`."""
        if self.revoked:
            return "revoked"
        if self.expires and datetime.fromisoformat(self.expires) <= now:
            return "expired"
        return "active" if datetime.fromisoformat(self.not_before) <= now else "not yet valid"


@dataclass(frozen=True)
class KeyRing:
    """What a key file holds.

    Attributes:
        salt: goes before every key into its hash, so that two installations' hashes of one key differ.
        keys: all keys, revoked ones too.
    """

    salt: bytes
    keys: tuple[ApiKey, ...]

    @functools.cached_property
    def _known(self) -> tuple[tuple[str, Client, float, float], ...]:
        """Hash, whose it is, beginning and end of each key that is not revoked; in seconds, as `time.time()`."""
        return tuple(
            (
                key.sha256,
                Client(f"key:{key.id}", frozenset(key.scopes)),
                datetime.fromisoformat(key.not_before).timestamp(),
                datetime.fromisoformat(key.expires).timestamp() if key.expires else math.inf,
            )
            for key in self.keys
            if not key.revoked
        )

    def find(self, key: str, now: float) -> Client | None:
        """Return whose key this is, or None for a key that is unknown, revoked, expired or not yet valid at `now`.

        Every hash is compared, each in constant time: how long it takes tells nothing about the keys.
        """
        digest = _hash(self.salt, key)
        found = None
        for sha256, client, begins, ends in self._known:
            if hmac.compare_digest(digest, sha256) and begins <= now < ends:
                found = client
        return found


def _hash(salt: bytes, key: str) -> str:
    return hashlib.sha256(salt + key.encode("utf-8", "surrogatepass")).hexdigest()


def read(path: Path) -> KeyRing:
    """Read a key file, or refuse it: it is absent, damaged, or others may write to it."""
    fix = "make a key with: bike-pipeline api-key create NAME"
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"cannot read the API keys ({reason})", where=str(path), fix=fix) from None
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigurationError(
            "others may write to the API keys, and so let themselves in", where=str(path), fix=f"chmod 600 {path}"
        )
    try:
        content = json.loads(text)
        if content["layout"] != _LAYOUT:
            raise ValueError
        return KeyRing(bytes.fromhex(content["salt"]), tuple(_key(each) for each in content["keys"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ConfigurationError(
            "it is no file of API keys, or a damaged one", where=str(path), fix="restore it, or make new keys"
        ) from None


def _key(content: Any) -> ApiKey:
    key = ApiKey(**{**content, "scopes": tuple(content["scopes"])})
    for moment in (key.created, key.not_before, *filter(None, (key.expires, key.revoked))):
        if datetime.fromisoformat(moment).tzinfo is None:
            raise ValueError(moment)
    if not set(key.scopes) <= set(SCOPES) or (not key.revoked and len(bytes.fromhex(key.sha256)) != 32):
        raise ValueError(key.id)
    return key


def create(
    path: Path,
    name: str,
    scopes: Sequence[str],
    *,
    not_before: datetime | None = None,
    expires: datetime | None = None,
) -> tuple[ApiKey, str]:
    """Make a key, write its hash into the file, and return both; the key itself is kept nowhere.

    It is let in from `not_before`, or now, until it `expires`, or for ever; for its scopes see `identity.SCOPES`.
    """
    now = datetime.now(UTC).replace(microsecond=0)
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name[:80]!r} is no name of a key", fix="use up to 64 letters, digits, and _ . @ - after the first"
        )
    if expires is not None and expires <= max(now, not_before or now):
        raise ConfigurationError("the key would end before it begins", where="--expires", fix="name a later moment")
    key = PREFIX + secrets.token_urlsafe(_KEY_BYTES)
    with _locked(path):
        ring = read(path) if path.exists() else KeyRing(secrets.token_bytes(16), ())
        made = ApiKey(
            id=secrets.token_hex(4),
            name=name,
            scopes=tuple(sorted(set(scopes))),
            sha256=_hash(ring.salt, key),
            created=now.isoformat(),
            not_before=(not_before or now).isoformat(),
            expires=expires.isoformat() if expires else "",
        )
        _write(path, ring.salt, (*ring.keys, made))
    return made, key


def revoke(path: Path, key_id: str) -> ApiKey:
    """Forget a key's hash; who had it and until when stays on record."""
    with _locked(path):
        ring = read(path)
        found = next((key for key in ring.keys if key.id == key_id), None)
        if found is None:
            known = ", ".join(key.id for key in ring.keys if not key.revoked) or "none"
            raise ConfigurationError(f"there is no key {key_id!r}", where=str(path), fix=f"active keys: {known}")
        if found.revoked:
            return found
        gone = replace(found, sha256="", revoked=datetime.now(UTC).replace(microsecond=0).isoformat())
        _write(path, ring.salt, [gone if key.id == key_id else key for key in ring.keys])
    return gone


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with one_error("write", path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Two people who make keys at the same moment both find theirs in the file.
    busy = BusyError("another process changes the keys", where=str(path), fix="try again")
    with file_lock(path.with_name(f".{path.name}.lock"), busy, seconds=FOREVER, mode=0o600):
        yield


def _write(path: Path, salt: bytes, keys: Iterable[ApiKey]) -> None:
    content = json.dumps({"layout": _LAYOUT, "salt": salt.hex(), "keys": [asdict(key) for key in keys]}, indent=2)
    replace_file(path, f"{content}\n".encode(), mode=0o600)
