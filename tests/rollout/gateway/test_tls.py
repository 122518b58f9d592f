"""TLS and client certificates through the real Envoy: who is believed, and renewals without a restart."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import warnings
from datetime import timedelta

import grpc
import pytest

from bike_pipeline.errors import ConfigurationError
from bike_pipeline.rollout.gateway import api_keys, filters
from bike_pipeline.settings.gateway import GatewaySettings, GatewayTlsSettings
from tests.rollout.gateway.attacking import call, client_context, gateway_before, status
from tests.rollout.gateway.authorities import Authority, Mounted, Signed
from tests.serving.server.asking import wait_until


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


def tls(signed, clients=None, minimum="1.2"):
    more = f", client_ca_file: {clients}" if clients else ""
    files = f"certificate_file: {signed.certificate}, key_file: {signed.key}"
    return f'tls={{{files}{more}, minimum_version: "{minimum}"}}'


def credentials(authority, client=None):
    pair = (client.key.read_bytes(), client.certificate.read_bytes()) if client else (None, None)
    return grpc.ssl_channel_credentials(authority.certificate.read_bytes(), *pair)


def is_let_in(address, context):
    """Return whether a request is answered; with TLS 1.3 a refusal shows with the first answer."""
    try:
        return status(address, context=context) == 200
    except (OSError, http.client.HTTPException):
        return False


def number(address, authority, client=None):
    """Return the serial number of the certificate that is shown."""
    from cryptography import x509

    host, _, port = address.partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as plain:
        context = client_context(authority, client)
        with context.wrap_socket(plain, server_hostname=host) as connection:
            return x509.load_der_x509_certificate(connection.getpeercert(binary_form=True)).serial_number


@pytest.mark.parametrize("minimum", ["1.2", "1.3"])
def test_one_port_speaks_tls_of_the_allowed_versions_to_who_trusts_the_authority(server, tmp_path, authority, minimum):
    stranger = Authority(tmp_path, "stranger")
    with gateway_before(server, tmp_path, tls(authority.sign("server"), minimum=minimum)) as gateway:
        assert status(gateway.address, context=client_context(authority)) == 200
        assert call(gateway.address, credentials=credentials(authority)) == "OK"
        with pytest.raises(ssl.SSLCertVerificationError):
            status(gateway.address, context=client_context(stranger))
        with pytest.raises((OSError, http.client.HTTPException)):
            status(gateway.address)
        with warnings.catch_warnings(action="ignore"):
            for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
                context = client_context(authority, version=version)
                context.set_ciphers("ALL:@SECLEVEL=0")
                assert not is_let_in(gateway.address, context)
        assert is_let_in(gateway.address, client_context(authority, version=ssl.TLSVersion.TLSv1_3))
        oldest = is_let_in(gateway.address, client_context(authority, version=ssl.TLSVersion.TLSv1_2))
        assert oldest == (minimum == "1.2")


def test_with_mtls_and_keys_a_client_needs_both(server, tmp_path, authority):
    clients, strangers = Authority(tmp_path, "clients"), Authority(tmp_path, "strangers")
    good, bad = clients.sign("good", client=True), strangers.sign("bad", client=True)
    late = clients.sign("late", client=True, lasts=timedelta(days=-1))
    _, key = api_keys.create(tmp_path / "workspace" / "keys" / "gateway-keys.json", "dashboard")
    settings = (tls(authority.sign("server"), clients.certificate), "authentication.methods=[api_keys]")
    with gateway_before(server, tmp_path, *settings) as gateway:
        assert status(gateway.address, key, context=client_context(authority, good)) == 200
        assert status(gateway.address, context=client_context(authority, good)) == 401
        assert call(gateway.address, key, credentials=credentials(authority, good)) == "OK"
        assert call(gateway.address, credentials=credentials(authority, good)) == "UNAUTHENTICATED"
        for wrong in (None, bad, late):
            assert not is_let_in(gateway.address, client_context(authority, wrong))
            assert call(gateway.address, key, credentials=credentials(authority, wrong)) == "UNAVAILABLE"


@contextlib.contextmanager
def no_request_fails(gateway, authority):
    """Ask all the while, and then that every request was answered."""
    ended, failures = threading.Event(), []

    def asks():
        while not ended.is_set():
            try:
                assert status(gateway.address, context=client_context(authority)) == 200
            except Exception as error:  # noqa: BLE001 (every failure counts)
                failures.append(repr(error))

    thread = threading.Thread(target=asks)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    assert failures == []


def test_a_renewed_certificate_is_shown_without_a_restart_and_no_request_fails(server, tmp_path, authority):
    (tmp_path / "live").mkdir()
    signed = authority.sign("server")
    with gateway_before(server, tmp_path, tls(signed)) as gateway, no_request_fails(gateway, authority):
        for _ in range(3):
            before = number(gateway.address, authority)
            authority.sign("server", into=signed)
            wait_until(lambda before=before: number(gateway.address, authority) != before)
        # A renewal that is not sound changes nothing.
        last = number(gateway.address, authority)
        aside = signed.certificate.with_suffix(".broken")
        aside.write_text("no certificate")
        aside.replace(signed.certificate)
        wait_until(lambda: "no certificate" in signed.certificate.read_text())
        assert {number(gateway.address, authority) for _ in range(20)} == {last}


def test_a_secret_that_kubernetes_renews_is_shown_without_a_restart_and_no_connection_fails(
    server, tmp_path, authority
):
    signed = authority.sign("server")
    mounted = Mounted(tmp_path / "secret", {"tls.crt": signed.certificate, "tls.key": signed.key})
    files = Signed(mounted.folder / "tls.crt", mounted.folder / "tls.key")
    with gateway_before(server, tmp_path, tls(files)) as gateway, no_request_fails(gateway, authority):
        for _ in range(3):
            before = number(gateway.address, authority)
            authority.sign("server", into=signed)
            mounted.renew({"tls.crt": signed.certificate, "tls.key": signed.key})
            wait_until(lambda before=before: number(gateway.address, authority) != before)


def test_renewed_client_authorities_let_in_the_new_and_keep_out_the_old_in_resumed_sessions_too(
    server, tmp_path, authority
):
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    before, after = old.sign("before", client=True), new.sign("after", client=True)
    accepted = tmp_path / "accepted" / "clients.pem"
    accepted.parent.mkdir()
    accepted.write_bytes(old.certificate.read_bytes())
    with gateway_before(server, tmp_path, tls(authority.sign("server"), accepted)) as gateway:
        context = client_context(authority, before, ssl.TLSVersion.TLSv1_2)
        host, _, port = gateway.address.partition(":")
        with context.wrap_socket(socket.create_connection((host, int(port))), server_hostname=host) as connection:
            session = connection.session
        assert is_let_in(gateway.address, client_context(authority, before))
        assert not is_let_in(gateway.address, client_context(authority, after))
        aside = accepted.with_suffix(".new")
        aside.write_bytes(new.certificate.read_bytes())
        aside.replace(accepted)
        wait_until(lambda: is_let_in(gateway.address, client_context(authority, after)))
        assert not is_let_in(gateway.address, client_context(authority, before))
        plain, answer = socket.create_connection((host, int(port)), timeout=20), b""
        with contextlib.suppress(OSError), context.wrap_socket(plain, server_hostname=host, session=session) as resumed:
            resumed.sendall(b"GET /v1/models/bike_demand HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            answer = resumed.recv(10)
        assert answer == b""


@pytest.mark.parametrize("wrong", ["expired", "early", "missing", "other-key", "no-pem", "clients"])
def test_a_gateway_does_not_start_on_files_that_are_unsound(tmp_path, authority, wrong):
    good, other = authority.sign("server"), authority.sign("other")
    files = {"certificate_file": str(good.certificate), "key_file": str(good.key)}
    if wrong == "expired":
        files["certificate_file"] = str(authority.sign("server", lasts=timedelta(days=-1)).certificate)
    elif wrong == "early":
        files["certificate_file"] = str(authority.sign("server", begins=timedelta(days=1)).certificate)
    elif wrong == "missing":
        files["key_file"] = str(tmp_path / "none.pem")
    elif wrong == "other-key":
        files["key_file"] = str(other.key)
    elif wrong == "no-pem":
        (tmp_path / "text.pem").write_text("text")
        files["certificate_file"] = str(tmp_path / "text.pem")
    else:
        (tmp_path / "empty.pem").write_text("")
        files["client_ca_file"] = str(tmp_path / "empty.pem")
    with pytest.raises(ConfigurationError, match="no certificate to speak TLS with"):
        filters.check(GatewaySettings(tls=GatewayTlsSettings(**files)))
