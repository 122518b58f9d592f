"""TLS for both protocols: certificates that are checked before they are used, and renewed without a restart."""

from __future__ import annotations

import contextlib
import logging
import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bike_pipeline.errors import ConfigurationError
from bike_pipeline.serving.security.watched_file import WatchedFiles, content_of

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from bike_pipeline.settings.serving import TlsSettings

_log = logging.getLogger(__name__)
_SETTING = "serving.security.tls"
_RENEW = f"renew it, or correct {_SETTING}"
# Let's Encrypt and cert-manager renew a month before the end; two weeks before it something is wrong with that.
_EXPIRES_SOON = timedelta(days=14)
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@dataclass(frozen=True)
class Identity:
    """The server's certificate with what signed it, its key and the authorities of its clients, as PEM.

    Attributes:
        context: made of these, for REST.
    """

    chain: bytes
    key: bytes
    client_authorities: bytes
    context: ssl.SSLContext


def watch(tls: TlsSettings) -> WatchedFiles[Identity]:
    """Return the identity that the settings name, which follows its files.

    A ConfigurationError says that one is missing, no PEM, expired or not yet valid, or that the key is another one's.
    """
    names = [tls.certificate_file, tls.key_file, *([tls.client_ca_file] if tls.client_ca_file else [])]
    return WatchedFiles([Path(name).expanduser() for name in names], lambda: _read(tls))


def _read(tls: TlsSettings) -> Identity:
    chain = content_of(tls.certificate_file, _SETTING)
    key = content_of(tls.key_file, _SETTING)
    authorities = content_of(tls.client_ca_file, _SETTING) if tls.client_ca_file else b""
    own = _check_certificates(chain, tls.certificate_file)
    _check_key(key, tls.key_file)
    if tls.client_ca_file:
        # An empty file must not switch the check of clients off.
        _check_certificates(authorities, tls.client_ca_file)
    left = own.not_valid_after_utc - datetime.now(UTC)
    if left < _EXPIRES_SOON:
        _log.warning("%s: the certificate ends in %d days", tls.certificate_file, left.days)
    return Identity(chain, key, authorities, _context(tls, chain, key, authorities))


def _check_certificates(pem: bytes, where: str) -> Certificate:
    """Return the first certificate of a file, or refuse the file: one is not valid now."""
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise ConfigurationError("it holds no certificate as PEM", where=where, fix=_RENEW) from None
    now = datetime.now(UTC)
    for certificate in found:
        name = certificate.subject.rfc4514_string()
        ends, begins = certificate.not_valid_after_utc, certificate.not_valid_before_utc
        if ends < now:
            ended = f"the certificate of {name} expired on {ends:%Y-%m-%d %H:%M} UTC"
            raise ConfigurationError(ended, where=where, fix=_RENEW)
        if begins > now:
            raise ConfigurationError(
                f"the certificate of {name} is valid only from {begins:%Y-%m-%d %H:%M} UTC",
                where=where,
                fix="set this machine's clock, or renew the certificate",
            )
    return found[0]


def _check_key(pem: bytes, where: str) -> None:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigurationError(
            "it holds no private key as PEM without a password", where=where, fix="name the key of the certificate"
        ) from None


def context_of(files: WatchedFiles[Identity]) -> ssl.SSLContext:
    """Return a server's context for REST; each handshake takes the files' state of that moment."""
    at_start = files.get()

    def choose(connection: Any, _name: str | None, _context_of_connection: ssl.SSLContext) -> int | None:
        # OpenSSL asks here in every handshake, with or without a server name (SNI).
        identity = files.get()
        if connection.session_reused and identity.client_authorities != at_start.client_authorities:
            # A resumed session of TLS 1.2 skips the check of the client's certificate. OpenSSL forgets the session with
            # this alert, so that the client's next try is a whole handshake.
            return ssl.ALERT_DESCRIPTION_CERTIFICATE_UNKNOWN
        connection.context = identity.context
        return None

    at_start.context.sni_callback = choose
    return at_start.context


def _context(tls: TlsSettings, chain: bytes, key: bytes, authorities: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[tls.minimum_version]
    context.set_alpn_protocols(["http/1.1"])
    # A resumed session would skip the check of the client's certificate against renewed authorities.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 0
    try:
        # The bytes that were checked, not whatever stands in the files by now.
        with _on_disk(chain) as chain_file, _on_disk(key) as key_file:
            context.load_cert_chain(chain_file, key_file)
        if authorities:
            context.load_verify_locations(cadata=authorities.decode("ascii", "ignore"))
            context.verify_mode = ssl.CERT_REQUIRED
    except ssl.SSLError as error:
        if error.reason in {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"}:
            raise ConfigurationError(
                f"the key does not belong to the certificate in {tls.certificate_file}",
                where=tls.key_file,
                fix="name the key that the certificate was made for; in a chain, the server's own comes first",
            ) from None
        raise ConfigurationError(
            f"OpenSSL refuses the certificate or its key ({error.reason or error})",
            where=tls.certificate_file,
            fix=_RENEW,
        ) from None
    return context


@contextlib.contextmanager
def _on_disk(content: bytes) -> Iterator[str]:
    """Lend bytes as a file in memory (memfd_create(2)): Python's ssl takes nothing else."""
    descriptor = os.memfd_create("bike-pipeline-tls")
    try:
        os.write(descriptor, content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def credentials_of(files: WatchedFiles[Identity]) -> Any:
    """Return gRPC's `ServerCredentials`; each new connection takes the files' state of that moment."""
    import grpc

    given = files.get()

    def configuration(identity: Identity) -> Any:
        return grpc.ssl_server_certificate_configuration(
            [(identity.key, identity.chain)], root_certificates=identity.client_authorities or None
        )

    def renewed() -> Any:
        nonlocal given
        identity = files.get()
        if identity is given:
            return None
        given = identity
        return configuration(identity)

    needs_clients = bool(given.client_authorities)
    return grpc.dynamic_ssl_server_credentials(configuration(given), renewed, needs_clients)
