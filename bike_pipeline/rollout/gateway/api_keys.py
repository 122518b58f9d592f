"""API keys of the gateway: signed by a key pair of their own each, whose public half alone is kept.

A key is a JSON Web Token, which Envoy checks by itself against a local JSON Web Key Set: the file. Making a key makes a
pair, signs with it once and forgets the private half; revoking a key takes its public half away. So whoever reads the
file can let nobody in, and what ends a key (a time, its revocation) needs no look at anything but the file.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bike_pipeline.errors import BusyError, ConfigurationError
from bike_pipeline.storage.atomic_files import FOREVER, file_lock, one_error, replace_file

ISSUER, AUDIENCE = "bike-pipeline api-key", "bike-pipeline gateway"
_LAYOUT = 2
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")
_FIX = "make a key with: bike-pipeline api-key create NAME"
# The kinds of public keys (RFC 7518, 6.1; RFC 8037); `oct` is a shared secret, by which anyone who knows a public key
# could sign where both were believed (RFC 8725, 2.1).
_PUBLIC = ("RSA", "EC", "OKP")


@dataclass(frozen=True)
class ApiKey:
    """One key, without what proves it.

    Attributes:
        id: names the key in lists, and its pair: eight hexadecimal digits.
        public: its public half as a JSON Web Key; empty once it is revoked.
        created: when it was made, ISO 8601, UTC, as all times.
        not_before: from when on it is let in.
        expires: until when; empty for no end.
        revoked: when it was revoked; empty for not.
    """

    id: str
    name: str
    public: dict[str, str]
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


def read(path: Path) -> tuple[ApiKey, ...]:
    """Return all keys of a file, revoked ones too, or refuse it: it is absent, damaged, or others may write to it."""
    return _read(path)[1]


def _read(path: Path) -> tuple[dict[str, str], tuple[ApiKey, ...]]:
    content = _json(path, _FIX)
    if path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigurationError(
            "others may write to the API keys, and so let themselves in", where=str(path), fix=f"chmod 600 {path}"
        )
    try:
        if content["layout"] != _LAYOUT:
            raise ValueError
        return dict(content["nobody"]), tuple(ApiKey(**entry) for entry in content["keys"])
    except (ValueError, KeyError, TypeError):
        raise ConfigurationError(
            "it is no file of the gateway's API keys, or a damaged one",
            where=str(path),
            fix="restore it, or make new keys",
        ) from None


def key_set(path: Path) -> str:
    """Return the JSON Web Key Set of the keys that are not revoked.

    Envoy refuses an empty set and would go on with the one before, the last key that was revoked in it: one public key
    more, whose private half nobody has, is always there.
    """
    nobody, keys = _read(path)
    return json.dumps({"keys": [nobody, *(key.public for key in keys if not key.revoked)]})


def public_keys(path: Path) -> str:
    """Return an issuer's JSON Web Key Set without what is no public key for signatures, or refuse it: none is left."""
    fix = "save what the issuer's jwks_uri answers"
    try:
        keys = [key for key in _json(path, fix)["keys"] if key.get("kty") in _PUBLIC and key.get("use", "sig") == "sig"]
        chosen = [{name: value for name, value in key.items() if name != "d"} for key in keys if key.get("kid")]
    except (KeyError, TypeError, AttributeError):
        chosen = []
    if not chosen:
        raise ConfigurationError("it holds no public key with a `kid`", where=str(path), fix=fix)
    return json.dumps({"keys": chosen})


def create(
    path: Path, name: str, *, not_before: datetime | None = None, expires: datetime | None = None
) -> tuple[ApiKey, str]:
    """Make a key, keep its public half in the file, and return both; the key itself is kept nowhere.

    It is let in from `not_before`, or now, until it `expires`, or for ever.
    """
    import jwt

    now = datetime.now(UTC).replace(microsecond=0)
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name[:80]!r} is no name of a key", fix="use up to 64 letters, digits, and _ . @ - after the first"
        )
    if expires is not None and expires <= max(now, not_before or now):
        raise ConfigurationError("the key would end before it begins", where="--expires", fix="name a later moment")
    key_id = secrets.token_hex(4)
    private, public = _pair(key_id)
    claims: dict[str, Any] = {"iss": ISSUER, "aud": AUDIENCE, "sub": f"{name} {key_id}", "nbf": not_before or now}
    if expires:
        claims["exp"] = expires
    key = jwt.encode(claims, private, "ES256", headers={"kid": key_id})
    made = ApiKey(
        id=key_id,
        name=name,
        public=public,
        created=now.isoformat(),
        not_before=(not_before or now).isoformat(),
        expires=expires.isoformat() if expires else "",
    )
    with _locked(path):
        nobody, keys = _read(path) if path.exists() else (_pair("nobody")[1], ())
        _write(path, nobody, (*keys, made))
    return made, key


def revoke(path: Path, key_id: str) -> ApiKey:
    """Forget a key's public half; who had it and until when stays on record."""
    with _locked(path):
        nobody, keys = _read(path)
        chosen = next((key for key in keys if key.id == key_id), None)
        if chosen is None:
            active = ", ".join(key.id for key in keys if not key.revoked) or "none"
            raise ConfigurationError(f"there is no key {key_id!r}", where=str(path), fix=f"active keys: {active}")
        if chosen.revoked:
            return chosen
        gone = replace(chosen, public={}, revoked=datetime.now(UTC).replace(microsecond=0).isoformat())
        _write(path, nobody, [gone if key.id == key_id else key for key in keys])
    return gone


def _pair(key_id: str) -> tuple[Any, dict[str, str]]:
    """Return a new private key on P-256, and its public half as a JSON Web Key (RFC 7518, 6.2.1)."""
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    numbers = private.public_key().public_numbers()

    def text(number: int) -> str:
        return base64.urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode()

    return private, {
        "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig",
        "kid": key_id, "x": text(numbers.x), "y": text(numbers.y),
    }  # fmt: skip


def _json(path: Path, fix: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read it ({error.strerror or error})", where=str(path), fix=fix) from None
    except (ValueError, RecursionError):
        raise ConfigurationError("it is not JSON", where=str(path), fix=fix) from None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with one_error("write", path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Two people who make keys at the same moment both find theirs in the file.
    busy = BusyError("another process changes the keys", where=str(path), fix="try again")
    with file_lock(path.with_name(f".{path.name}.lock"), busy, seconds=FOREVER, mode=0o600):
        yield


def _write(path: Path, nobody: dict[str, str], keys: Sequence[ApiKey]) -> None:
    content = json.dumps({"layout": _LAYOUT, "nobody": nobody, "keys": [asdict(key) for key in keys]}, indent=2)
    replace_file(path, f"{content}\n".encode(), mode=0o600)
