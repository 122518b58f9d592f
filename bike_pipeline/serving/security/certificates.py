"""TLS for both protocols: certificates that are checked before they are used, and renewed without a restart."""

from __future__ import annotations

import contextlib
import logging
import os
import ssl
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bike_pipeline.errors import ConfigurationError
from bike_pipeline.serving.security.watched_file import WatchedFiles

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from bike_pipeline.settings.serving_security import TlsSettings

_log = logging.getLogger(__name__)
_RENEW = "renew it, or correct serving.security.tls"
# Let's Encrypt and cert-manager renew a month before the end; two weeks before it something is wrong with that.
_EXPIRES_SOON = timedelta(days=14)
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@dataclass(frozen=True)
class Identity:
    """The server's certificate, its key and the authorities of its clients, as PEM.

    Attributes:
        chain: the certificate and what signed it.
        key: the private key.
        client_authorities: whose client certificates are let in; empty where clients need none.
    """

    chain: bytes
    key: bytes
    client_authorities: bytes


def watch(tls: TlsSettings) -> WatchedFiles[Identity]:
    """Return the identity that the settings name, which follows its files.

    Raises:
        ConfigurationError: a file is missing, no PEM, expired or not yet valid, or the key is another one's.
    """
    names = [tls.certificate_file, tls.key_file, *([tls.client_ca_file] if tls.client_ca_file else [])]
    return WatchedFiles([Path(name).expanduser() for name in names], lambda: read(tls))


def read(tls: TlsSettings) -> Identity:
    """Read and check the files of an identity.

    Raises:
        ConfigurationError: a file is missing, no PEM, expired or not yet valid, or the key is another one's.
    """
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    chain, key = _bytes(tls.certificate_file), _bytes(tls.key_file)
    certificates = _certificates(chain, tls.certificate_file)
    for certificate in certificates:
        _check_dates(certificate, tls.certificate_file)
    public = [
        holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        for holder in (certificates[0], _private_key(key, tls.key_file))
    ]
    if public[0] != public[1]:
        raise ConfigurationError(
            f"the key does not belong to the certificate in {tls.certificate_file}",
            where=tls.key_file,
            fix="name the key that the certificate was made for; in a chain, the server's own certificate comes first",
        )
    authorities = b""
    if tls.client_ca_file:
        authorities = _bytes(tls.client_ca_file)
        for certificate in _certificates(authorities, tls.client_ca_file):
            _check_dates(certificate, tls.client_ca_file)
    left = certificates[0].not_valid_after_utc - datetime.now(UTC)
    if left < _EXPIRES_SOON:
        _log.warning("%s: the certificate ends in %d days", tls.certificate_file, left.days)
    return Identity(chain, key, authorities)


def _bytes(path: str) -> bytes:
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"cannot read it ({error.strerror or error})", where=path, fix="correct serving.security.tls"
        ) from None


def _certificates(pem: bytes, where: str) -> Sequence[Certificate]:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise ConfigurationError("it holds no certificate as PEM", where=where, fix=_RENEW) from None


def _private_key(pem: bytes, where: str) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigurationError(
            "it holds no private key as PEM without a password", where=where, fix="name the key of the certificate"
        ) from None


def _check_dates(certificate: Certificate, where: str) -> None:
    now = datetime.now(UTC)
    name = certificate.subject.rfc4514_string()
    if certificate.not_valid_after_utc < now:
        ended = f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
        raise ConfigurationError(f"the certificate of {name} expired on {ended}", where=where, fix=_RENEW)
    if certificate.not_valid_before_utc > now:
        begins = f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        raise ConfigurationError(
            f"the certificate of {name} is valid only from {begins}",
            where=where,
            fix="set this machine's clock, or renew the certificate",
        )


def context_of(tls: TlsSettings, files: WatchedFiles[Identity]) -> ssl.SSLContext:
    """Return a server's context for REST; each handshake takes the files' state of that moment.

    Raises:
        ConfigurationError: OpenSSL refuses the files: a key too weak, or of a kind it does not know.
    """
    now = {"identity": files.get()}
    first = current = _context(tls, now["identity"])
    at_start = now["identity"].client_authorities

    def choose(connection: Any, _name: str | None, _context_of_connection: ssl.SSLContext) -> int | None:
        # OpenSSL asks here in every handshake, with or without a server name (SNI).
        nonlocal current
        identity = files.get()
        if identity is not now["identity"]:
            now["identity"] = identity
            try:
                current = _context(tls, identity)
            except ConfigurationError as error:
                _log.error("%s The last good certificate stays in force.", error)
        if connection.session_reused and identity.client_authorities != at_start:
            # A resumed session of TLS 1.2 skips the check of the client's certificate. OpenSSL forgets the session with
            # this alert, so that the client's next try is a whole handshake.
            return ssl.ALERT_DESCRIPTION_CERTIFICATE_UNKNOWN
        connection.context = current
        return None

    first.sni_callback = choose
    return first


def _context(tls: TlsSettings, identity: Identity) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[tls.minimum_version]
    context.set_alpn_protocols(["http/1.1"])
    # A resumed session would skip the check of the client's certificate against renewed authorities.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 0
    try:
        # The bytes that were checked, not whatever stands in the files by now.
        with _on_disk(identity.chain) as chain, _on_disk(identity.key) as key:
            context.load_cert_chain(chain, key)
        if identity.client_authorities:
            context.load_verify_locations(cadata=identity.client_authorities.decode("ascii", "ignore"))
            context.verify_mode = ssl.CERT_REQUIRED
    except ssl.SSLError as error:
        raise ConfigurationError(
            f"OpenSSL refuses the certificate or its key ({error.reason or error})",
            where=tls.certificate_file,
            fix=_RENEW,
        ) from None
    return context


@contextlib.contextmanager
def _on_disk(content: bytes) -> Iterator[str]:
    """Lend bytes as a file, which is all that Python's ssl takes; in memory where the system can (memfd_create(2))."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("bike-pipeline-tls")
        try:
            os.write(descriptor, content)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
        return
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        yield file.name


def credentials_of(files: WatchedFiles[Identity]) -> Any:
    """Return gRPC's `ServerCredentials`; each new connection takes the files' state of that moment."""
    import grpc

    given = {"identity": files.get()}

    def configuration(identity: Identity) -> Any:
        return grpc.ssl_server_certificate_configuration(
            [(identity.key, identity.chain)], root_certificates=identity.client_authorities or None
        )

    def renewed() -> Any:
        identity = files.get()
        if identity is given["identity"]:
            return None
        given["identity"] = identity
        return configuration(identity)

    needs_clients = bool(given["identity"].client_authorities)
    return grpc.dynamic_ssl_server_credentials(
        configuration(given["identity"]), renewed, require_client_authentication=needs_clients
    )
