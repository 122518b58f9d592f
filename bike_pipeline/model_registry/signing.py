"""Keys: the one that signs what this machine pushes, and those whose signatures are trusted.

Devices and releases up to 0.1 verify ed25519 (RFC 8032), OpenSSF Model Signing ECDSA on a NIST curve (FIPS 186-5). One
secret serves both: from an ed25519 key the P-256 key that signs models is derived. A key on a NIST curve signs models
only. Every function raises ConfigurationError if a key that is named cannot be read or is of another kind, and
StorageError if the local key cannot be written.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bike_pipeline.errors import ConfigurationError, StorageError
from bike_pipeline.storage.atomic_files import create_file, replace_file

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings

PublicKey = Ed25519PublicKey | EllipticCurvePublicKey

KEY_VARIABLE = "BIKE_PIPELINE_SIGNING_KEY"
KEY_FILE_VARIABLE = "BIKE_PIPELINE_SIGNING_KEY_FILE"
_MAKE_ONE = "make one with: openssl genpkey -algorithm ed25519 -out FILE"
# Stages get no settings but those of their cache key, and who signs is no part of that. "key": the key file, and
# whether it is made; "trust": the trusted public keys, and whether nothing is used that none of them signed.
_default: dict[str, Any] = {}
_NO_KEY: tuple[Path | None, bool] = (None, False)
_NO_TRUST: tuple[tuple[Path, ...], bool] = ((), False)
# Goes before a public key that is signed, so that the signature can mean nothing else.
_CERTIFIES = b"bike_pipeline: this key signs models\0"
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@dataclass(frozen=True)
class Signer:
    """A private key at work, from a file or variable `origin`; `created` says whether it was made just now."""

    key_id: str
    origin: str
    created: bool
    _key: Ed25519PrivateKey | EllipticCurvePrivateKey

    def sign(self, content: bytes) -> bytes:
        """Return the ed25519 signature of the content, 64 bytes, which devices verify."""
        if not isinstance(self._key, Ed25519PrivateKey):
            problem = "this key signs models only; devices verify ed25519"
            raise ConfigurationError(problem, where=self.origin, fix=_MAKE_ONE)
        return self._key.sign(content)

    def sign_model(self, content: bytes) -> bytes:
        """Return the ECDSA signature (DER) of the content, which OpenSSF Model Signing verifies."""
        return self._model_key.sign(content, _ecdsa(self._model_key))

    def sign_document(self, content: bytes) -> bytes:
        """Return the signature of documents by the key itself, whatever its kind: `openssl pkeyutl` verifies it."""
        return self._key.sign(content) if isinstance(self._key, Ed25519PrivateKey) else self.sign_model(content)

    @property
    def document_digest(self) -> str:
        """The hash that OpenSSL is to take of documents; "" for ed25519, which has its own."""
        return "" if isinstance(self._key, Ed25519PrivateKey) else _digest(self._key).name

    @property
    def model_key_id(self) -> str:
        """The id of the public key that verifies models."""
        return key_id_of(self._model_key.public_key())

    @cached_property
    def _model_key(self) -> EllipticCurvePrivateKey:
        if isinstance(self._key, EllipticCurvePrivateKey):
            return self._key
        # FIPS 186-5, A.2.1: 64 bits more than the order has make the bias of the remainder negligible.
        derived = HKDF(hashes.SHA256(), 40, salt=None, info=b"bike_pipeline: P-256 key that signs models").derive(
            self._key.private_bytes_raw()
        )
        return ec.derive_private_key(int.from_bytes(derived) % (_P256_ORDER - 1) + 1, ec.SECP256R1())

    def certificate(self) -> dict[str, str]:
        """Return the key that verifies models, signed by ed25519: whoever trusts that key needs no other one."""
        if self._model_key is self._key:
            return {}
        pem = _pem(self._model_key.public_key())
        return {"public_key": pem.decode(), "ed25519": self.sign(_CERTIFIES + pem).hex()}

    def public_keys(self) -> dict[str, PublicKey]:
        """Return its public keys by id: its own, and the one that verifies models."""
        return {self.key_id: self._key.public_key(), self.model_key_id: self._model_key.public_key()}


def ed25519_keys(trusted: Mapping[str, PublicKey]) -> dict[str, Ed25519PublicKey]:
    """Return the trusted keys that devices, and releases up to 0.1, verify with, by id."""
    return {key_id: key for key_id, key in trusted.items() if isinstance(key, Ed25519PublicKey)}


def model_keys(trusted: Mapping[str, PublicKey], certificate: Any) -> dict[str, EllipticCurvePublicKey]:
    """Return the trusted keys that verify models, by id, and that of a `Signer.certificate` that one of them made."""
    keys = {key_id: key for key_id, key in trusted.items() if isinstance(key, EllipticCurvePublicKey)}
    try:
        pem, signature = certificate["public_key"].encode(), bytes.fromhex(certificate["ed25519"])
    except (KeyError, TypeError, AttributeError, ValueError):
        return keys
    if any(verifies(key, signature, _CERTIFIES + pem) for key in ed25519_keys(trusted).values()):
        with contextlib.suppress(ValueError):
            certified = serialization.load_pem_public_key(pem)
            if isinstance(certified, EllipticCurvePublicKey):
                keys[key_id_of(certified)] = certified
    return keys


def verifies(key: PublicKey, signature: bytes, content: bytes) -> bool:
    """Return whether the signature of the content was made with the key."""
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(signature, content)
        else:
            key.verify(signature, content, _ecdsa(key))
    except InvalidSignature:
        return False
    return True


def algorithm_of(key: PublicKey) -> str:
    """Return what signatures by a key are called: "ed25519" or "ECDSA" with its curve."""
    return "ed25519" if isinstance(key, Ed25519PublicKey) else f"ECDSA {key.curve.name}"


def _ecdsa(key: EllipticCurvePrivateKey | EllipticCurvePublicKey) -> ec.ECDSA:
    return ec.ECDSA(_digest(key))


def _digest(key: EllipticCurvePrivateKey | EllipticCurvePublicKey) -> hashes.HashAlgorithm:
    # The hash is as long as the key's curve (Model Signing).
    return {256: hashes.SHA256(), 384: hashes.SHA384()}.get(key.key_size, hashes.SHA512())


def use_key_file(path: Path, *, make: bool) -> None:
    """Name the key file of this process, which the environment variables go before; `make` it if it is absent."""
    _default["key"] = (path, make)


def use(settings: Settings) -> None:
    """Take the key file of this process, the keys it trusts, and whether it must, from the settings."""
    use_key_file(settings.signing_key_file, make=not settings.signing.key_file)
    named = tuple(Path(name).expanduser() for name in settings.signing.trusted_keys)
    _default["trust"] = (named, settings.signing.require_signature)


def required() -> bool:
    """Return whether nothing is used that no trusted key signed."""
    return bool(_default.get("trust", _NO_TRUST)[1])


def trusted_keys(*, without_own: bool = False) -> dict[str, PublicKey]:
    """Return the public keys that this process trusts, by id: the signing key's own and those that are named.

    With `without_own` a signing key that cannot be read is passed over: who only serves need not have it.
    """
    named, must = _default.get("trust", _NO_TRUST)
    found: dict[str, PublicKey] = {}
    with contextlib.suppress(ConfigurationError) if without_own else contextlib.nullcontext():
        found = own_public_keys()
    found |= read_public_keys(named)
    if must and not found:
        raise ConfigurationError(
            "a signature is required, and there is no public key to check it with",
            where="signing.require_signature",
            fix="name the signing key's public one in signing.trusted_keys",
        )
    return found


def signer() -> Signer | None:
    """Return the key that signs, made if that was asked for; None if none is configured."""
    if text := os.environ.get(KEY_VARIABLE):
        return _signer(text.encode(), f"the variable {KEY_VARIABLE}", created=False)
    if named := os.environ.get(KEY_FILE_VARIABLE):
        return _from_file(Path(named), make=False)
    return _from_file(*_default["key"]) if "key" in _default else None


def check() -> None:
    """Raise now what would keep the configured key from signing later; a local key is not made for it."""
    path, make = _default.get("key", _NO_KEY)
    if _in_environment() or (path is not None and (path.exists() or not make)):
        signer()


def _in_environment() -> bool:
    return bool(os.environ.get(KEY_VARIABLE) or os.environ.get(KEY_FILE_VARIABLE))


def _from_file(path: Path, make: bool) -> Signer:
    created = False
    try:
        if make and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            pem = Ed25519PrivateKey.generate().private_bytes(
                Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            created = create_file(path, pem, mode=0o600)
        content = path.read_bytes()
    except OSError as error:
        reason, fix = error.strerror or error, "grant write permission there, or name a key in signing.key_file"
        if make:
            raise StorageError(f"cannot write the signing key ({reason})", where=str(path), fix=fix) from None
        problem = f"cannot read the signing key ({reason})"
        raise ConfigurationError(problem, where=str(path), fix=_MAKE_ONE) from None
    found = _signer(content, str(path), created=created)
    if make:
        # Beside the private key a crash, or an earlier release, may have left no public one.
        for file, key in zip(_public_files(path), found.public_keys().values(), strict=False):
            pem = _pem(key)
            if not file.exists() or file.read_bytes() != pem:
                replace_file(file, pem)
    return found


def _public_files(path: Path) -> tuple[Path, Path]:
    return path.with_suffix(".pub"), path.with_name(f"model-{path.stem}.pub")


def _signer(pem: bytes, origin: str, created: bool) -> Signer:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if isinstance(key, Ed25519PrivateKey) or (isinstance(key, EllipticCurvePrivateKey) and key.curve.name in _CURVES):
        return Signer(key_id_of(key.public_key()), origin, created, key)
    problem = "it holds no ed25519 private key (nor one on P-256, P-384 or P-521) without a password"
    raise ConfigurationError(problem, where=origin, fix=_MAKE_ONE)


def _pem(key: PublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def key_id_of(key: PublicKey) -> str:
    """Return the id of a public key: the SHA-256 of its PEM text, as Model Signing has it; of ed25519, of its DER."""
    encoding = Encoding.DER if isinstance(key, Ed25519PublicKey) else Encoding.PEM
    return hashlib.sha256(key.public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def read_public_keys(paths: Iterable[Path]) -> dict[str, PublicKey]:
    """Return the public keys of PEM files by key id."""
    found = {}
    for path in paths:
        try:
            key = serialization.load_pem_public_key(path.read_bytes())
        except OSError as error:
            problem = f"cannot read the public key ({error.strerror or error})"
            raise ConfigurationError(problem, where=str(path), fix="check the path") from None
        except (ValueError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, PublicKey):
            problem = "it holds no ed25519 public key, nor one of ECDSA"
            raise ConfigurationError(problem, where=str(path), fix="openssl pkey -in KEY -pubout -out FILE")
        found[key_id_of(key)] = key
    return found


def own_public_keys() -> dict[str, PublicKey]:
    """Return the public keys that belong to the key that signs here, by id; no key is made."""
    path, make = _default.get("key", _NO_KEY)
    if path is not None and not _in_environment():
        public = [file for file in _public_files(path) if file.exists()]
        # Whoever only verifies has the public keys alone.
        if len(public) == len(_public_files(path)) or (public and not path.exists()):
            return read_public_keys(public)
        if make and not path.exists():
            return {}
    found = signer()
    return found.public_keys() if found else {}
