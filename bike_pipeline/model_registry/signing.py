"""ed25519 keys: the one that signs what this machine pushes, and those whose signatures are believed (RFC 8032)."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bike_pipeline.errors import ConfigurationError, StorageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    from bike_pipeline.settings import Settings

KEY_VARIABLE = "BIKE_PIPELINE_SIGNING_KEY"
KEY_FILE_VARIABLE = "BIKE_PIPELINE_SIGNING_KEY_FILE"
_MAKE_ONE = "make one with: openssl genpkey -algorithm ed25519 -out FILE"
# What this process was told: "key", the key file and whether it is made; "trust", the public keys that are believed and
# whether nothing is used that none of them signed.
_default: dict[str, Any] = {}
_NO_TRUST: tuple[tuple[Path, ...], bool] = ((), False)


@dataclass(frozen=True)
class Signer:
    """A private key at work.

    Attributes:
        key_id: SHA-256 of the public key (DER), which names the key.
        origin: where the key came from: a file or a variable.
        created: whether it was made just now.
    """

    key_id: str
    origin: str
    created: bool
    _key: Ed25519PrivateKey

    def sign(self, content: bytes) -> bytes:
        """Return the signature of the content, 64 bytes."""
        return self._key.sign(content)


def use_key_file(path: Path, *, make: bool) -> None:
    """Name the key file of this process, which the environment variables go before.

    Stages get no settings but those of their cache key, which who signs is no part of.

    Args:
        path: the private key.
        make: make it where it is absent: right for the local key of a workspace, wrong for one that was configured.
    """
    _default["key"] = (path, make)


def use(settings: Settings) -> None:
    """Name what the settings say: the key file of this process, whom it believes, and whether it must.

    The names of stages' parameters have no place for it, as with `use_key_file`.
    """
    use_key_file(settings.signing_key_file, make=not settings.signing.key_file)
    named = tuple(Path(name).expanduser() for name in settings.signing.trusted_keys)
    _default["trust"] = (named, settings.signing.require_signature)


def required() -> bool:
    """Return whether nothing is used that no believed key signed."""
    return bool(_default.get("trust", _NO_TRUST)[1])


def trusted_keys(*, without_own: bool = False) -> dict[str, Ed25519PublicKey]:
    """Return the public keys that are believed in this process by id: the signing key's own and those that were named.

    Args:
        without_own: whether a signing key that cannot be read is passed over: who only serves need not have it.

    Raises:
        ConfigurationError: a key cannot be read, or there is none although a signature is required.
    """
    named, must = _default.get("trust", _NO_TRUST)
    try:
        own = own_public_keys()
    except ConfigurationError:
        if not without_own:
            raise
        own = {}
    found = {**own, **read_public_keys(named)}
    if must and not found:
        raise ConfigurationError(
            "a signature is required, and there is no public key to check it with",
            where="signing.require_signature",
            fix="name the signing key's public one in signing.trusted_keys",
        )
    return found


def signer() -> Signer | None:
    """Return the key that signs, made where that was asked for; None where none is configured.

    Raises:
        ConfigurationError: the configured key is absent or no ed25519 private key.
        StorageError: the local key cannot be written.
    """
    if text := os.environ.get(KEY_VARIABLE):
        return _signer(text.encode(), f"the variable {KEY_VARIABLE}", created=False)
    if named := os.environ.get(KEY_FILE_VARIABLE):
        return _from_file(Path(named), make=False)
    return _from_file(*_default["key"]) if "key" in _default else None


def check() -> None:
    """Say now what would keep the configured key from signing later; a local key is not made for it.

    Raises:
        ConfigurationError: the configured key is absent or no ed25519 private key.
    """
    path, make = _default.get("key", (None, False))
    configured = os.environ.get(KEY_VARIABLE) or os.environ.get(KEY_FILE_VARIABLE)
    if configured or (path is not None and (path.exists() or not make)):
        signer()


def _from_file(path: Path, make: bool) -> Signer:
    created = False
    try:
        if make and not path.exists():
            created = _make(path)
        content = path.read_bytes()
    except OSError as error:
        if make:
            raise StorageError(
                f"cannot write the signing key ({error.strerror or error})",
                where=str(path),
                fix="grant write permission there, or name a key in signing.key_file",
            ) from None
        raise ConfigurationError(
            f"cannot read the signing key ({error.strerror or error})", where=str(path), fix=_MAKE_ONE
        ) from None
    found = _signer(content, str(path), created=created)
    if make:
        # Beside the private key a crash may have left no public one.
        _write_public(found, path.with_suffix(".pub"))
    return found


def _signer(pem: bytes, origin: str, created: bool) -> Signer:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError("it holds no ed25519 private key without a password", where=origin, fix=_MAKE_ONE)
    return Signer(key_id_of(key.public_key()), origin, created, key)


def _make(path: Path) -> bool:
    """Make a key at `path`, readable by its owner only; say whether it was this process that made it."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    # mkstemp's files are 0600 from the beginning; a link never replaces the key of a process that was faster.
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".signing-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
        return True
    except FileExistsError:
        return False
    finally:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()


def _write_public(found: Signer, path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem = found._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)  # noqa: SLF001
    if path.exists() and path.read_bytes() == pem:
        return
    try:
        # A name of its own: threads of one process write it at the same moment, too.
        temporary = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
        temporary.write_bytes(pem)
        temporary.replace(path)
    except OSError as error:
        raise StorageError(
            f"cannot write the public key ({error.strerror or error})", where=str(path), fix="grant write permission"
        ) from None


def key_id_of(key: Ed25519PublicKey) -> str:
    """Return the name of a public key: the SHA-256 of its DER form."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def read_public_keys(paths: Iterable[Path]) -> dict[str, Ed25519PublicKey]:
    """Return the public keys of PEM files by key id.

    Raises:
        ConfigurationError: a file is absent or holds no ed25519 public key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    found = {}
    for path in paths:
        try:
            key = load_pem_public_key(path.read_bytes())
        except OSError as error:
            raise ConfigurationError(
                f"cannot read the public key ({error.strerror or error})", where=str(path), fix="check the path"
            ) from None
        except (ValueError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PublicKey):
            raise ConfigurationError(
                "it holds no ed25519 public key", where=str(path), fix="openssl pkey -in KEY -pubout -out FILE"
            )
        found[key_id_of(key)] = key
    return found


def own_public_keys() -> dict[str, Ed25519PublicKey]:
    """Return the public key that belongs to the key that signs here, by its id; nothing is made.

    Raises:
        ConfigurationError: the configured key is no ed25519 private key.
    """
    path, make = _default.get("key", (None, False))
    if not (os.environ.get(KEY_VARIABLE) or os.environ.get(KEY_FILE_VARIABLE)) and path is not None:
        public = path.with_suffix(".pub")
        # Whoever only verifies has the public key alone.
        if public.exists():
            return read_public_keys([public])
        if make and not path.exists():
            return {}
    found = signer()
    return {found.key_id: found._key.public_key()} if found else {}  # noqa: SLF001
