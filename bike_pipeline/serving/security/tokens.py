"""JSON Web Tokens of an identity provider (RFC 7519), checked by PyJWT as RFC 8725 asks."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bike_pipeline.errors import ConfigurationError
from bike_pipeline.serving.security import SCOPES, Client
from bike_pipeline.serving.security.watched_file import WatchedFiles, content_of

if TYPE_CHECKING:
    from bike_pipeline.settings.serving import JwtSettings

# Tokens that passed are not checked again before they end: a signature costs some hundred microseconds.
_REMEMBERED = 4096
# Longer ones are refused unread; usual tokens have one or two thousand characters.
_LONGEST = 8192
# A shared secret shorter than its hash is guessable (RFC 7518, 3.2).
_SECRET_BYTES = 32
# The kinds of JWK (RFC 7518, 6.1; RFC 8037) that sign with each family of algorithms.
_KEY_TYPES = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP", "HS": "oct"}
_ONLY_KEY = ""
_SETTING = "serving.security.authentication.jwt"


class Tokens:
    """Believes the tokens of one issuer."""

    def __init__(self, settings: JwtSettings) -> None:
        self._settings = settings
        path = Path(settings.key_file or settings.jwks_file).expanduser()
        read = _read_key if settings.key_file else _read_key_set
        self._keys: WatchedFiles[Mapping[str, Any]] = WatchedFiles([path], lambda: read(path, settings.algorithms))
        self._believed: OrderedDict[bytes, tuple[Client, float]] = OrderedDict()
        self._believed_by: Mapping[str, Any] = {}

    def find(self, token: str) -> Client | None:
        """Return whose token this is, or None for one that is not believed."""
        if len(token) > _LONGEST:
            return None
        keys = self._keys.get()
        if keys is not self._believed_by:
            # What a withdrawn key has signed is believed no longer.
            self._believed_by = keys
            self._believed.clear()
        name = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        found = self._believed.get(name)
        if found is None or found[1] <= time.time():
            found = self._check(token, keys)
            if found is None:
                self._believed.pop(name, None)
                return None
            self._believed[name] = found
            if len(self._believed) > _REMEMBERED:
                self._believed.popitem(last=False)
        return found[0]

    def _check(self, token: str, keys: Mapping[str, Any]) -> tuple[Client, float] | None:
        import jwt

        try:
            header = jwt.get_unverified_header(token)
            key = keys.get(str(header.get("kid", ""))) if _ONLY_KEY not in keys else keys[_ONLY_KEY]
            if key is None:
                return None
            claims = jwt.decode(
                token,
                key,
                algorithms=list(self._settings.algorithms),
                issuer=self._settings.issuer,
                audience=self._settings.audience,
                leeway=self._settings.leeway_seconds,
                options={"require": ["exp", "iss", "aud", "sub"], "strict_aud": False},
            )
            return _client(claims), float(claims["exp"]) + self._settings.leeway_seconds
        # PyJWT's own errors, and what it lets through of odd claims: a token is believed or it is not.
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            return None


def _client(claims: Mapping[str, Any]) -> Client:
    # `scope` is one text with blanks (RFC 8693, 4.2); Azure and Okta write `scp`, some of them as a list.
    scopes = claims.get("scope", claims.get("scp", ""))
    names = scopes.split() if isinstance(scopes, str) else [str(each) for each in scopes]
    return Client(f"jwt:{str(claims['sub'])[:200]}", frozenset(names) & frozenset(SCOPES))


def _read_key(path: Path, algorithms: tuple[str, ...]) -> Mapping[str, Any]:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    content = content_of(str(path), _SETTING)
    if algorithms[0].startswith("HS"):
        secret = content.strip()
        if len(secret) < _SECRET_BYTES or secret.startswith(b"-----BEGIN"):
            raise ConfigurationError(
                f"the shared secret must be of at least {_SECRET_BYTES} bytes, and no public key",
                where=str(path),
                fix="make one with: openssl rand -base64 48",
            )
        return {_ONLY_KEY: secret}
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(
            "it holds no public key as PEM", where=str(path), fix="openssl pkey -in KEY -pubout -out FILE"
        ) from None
    kinds: dict[str, Any] = {
        "RSA": rsa.RSAPublicKey,
        "EC": ec.EllipticCurvePublicKey,
        "OKP": (ed25519.Ed25519PublicKey, ed448.Ed448PublicKey),
    }
    if not any(isinstance(key, kinds[_KEY_TYPES[name[:2]]]) for name in algorithms):
        raise ConfigurationError(
            f"the key signs with none of {', '.join(algorithms)}", where=str(path), fix="correct jwt.algorithms"
        )
    return {_ONLY_KEY: key}


def _read_key_set(path: Path, algorithms: tuple[str, ...]) -> Mapping[str, Any]:
    import orjson
    from jwt import PyJWK, PyJWTError

    allowed = {_KEY_TYPES[name[:2]] for name in algorithms}
    found: dict[str, Any] = {}
    try:
        for each in orjson.loads(content_of(str(path), _SETTING))["keys"]:
            # A set also holds keys for encryption, and for algorithms that are not ours.
            if each.get("kty") not in allowed or each.get("use", "sig") != "sig" or not each.get("kid"):
                continue
            if "alg" in each and each["alg"] not in algorithms:
                continue
            found[str(each["kid"])] = PyJWK(each, algorithm=each.get("alg") or _algorithm(each, algorithms))
    except (ValueError, KeyError, TypeError, AttributeError, PyJWTError):
        raise ConfigurationError(
            "it is no JSON Web Key Set", where=str(path), fix="save what the issuer's jwks_uri answers"
        ) from None
    if not found:
        raise ConfigurationError(
            f"it holds no key with a `kid` for any of {', '.join(algorithms)}",
            where=str(path),
            fix="save what the issuer's jwks_uri answers, or correct jwt.algorithms",
        )
    return found


def _algorithm(key: Mapping[str, Any], algorithms: tuple[str, ...]) -> str:
    """Return the first allowed algorithm of a key that names none."""
    return next(name for name in algorithms if _KEY_TYPES[name[:2]] == key["kty"])
