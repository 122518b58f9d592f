from __future__ import annotations

import logging
from datetime import timedelta

import pytest

from bike_pipeline.errors import ConfigurationError
from bike_pipeline.serving.security import certificates
from bike_pipeline.settings.serving import TlsSettings
from tests.rollout.gateway.authorities import Authority


def tls(signed, **more):
    return TlsSettings(certificate_file=str(signed.certificate), key_file=str(signed.key), **more)


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


def refusal_of(settings):
    with pytest.raises(ConfigurationError) as error:
        certificates.watch(settings)
    assert error.value.fix
    return error.value


def test_a_missing_file_is_named(authority, tmp_path):
    signed = authority.sign("server")
    signed.key.unlink()
    error = refusal_of(tls(signed))
    assert error.where == str(signed.key)
    assert "No such file" in error.what
    assert refusal_of(tls(authority.sign("b"), client_ca_file=str(tmp_path / "none.pem"))).where.endswith("none.pem")


def test_an_expired_certificate_and_one_of_tomorrow_are_refused_with_their_date(authority):
    expired = refusal_of(tls(authority.sign("expired", lasts=timedelta(days=-1))))
    assert "CN=expired expired on 20" in expired.what
    early = refusal_of(tls(authority.sign("early", begins=timedelta(days=1))))
    assert "CN=early is valid only from 20" in early.what


def test_a_key_of_another_certificate_is_refused(authority):
    one, other = authority.sign("one"), authority.sign("other")
    error = refusal_of(TlsSettings(certificate_file=str(one.certificate), key_file=str(other.key)))
    assert "does not belong to the certificate" in error.what
    assert error.where == str(other.key)


@pytest.mark.parametrize(
    "content", [b"", b"\x00\xff", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_files_that_hold_neither_certificate_nor_key_are_refused(authority, content):
    signed = authority.sign("server")
    good = signed.certificate.read_bytes()
    signed.certificate.write_bytes(content)
    assert "no certificate as PEM" in refusal_of(tls(signed)).what
    signed.certificate.write_bytes(good)
    signed.key.write_bytes(content)
    assert "no private key as PEM" in refusal_of(tls(signed)).what


@pytest.mark.parametrize("content", [b"", b"\x00\xff"])
def test_a_file_without_authorities_of_clients_is_refused_and_never_lets_everybody_in(authority, tmp_path, content):
    authorities = tmp_path / "clients.pem"
    settings = tls(authority.sign("server"), client_ca_file=str(authorities))
    authorities.write_bytes(authority.certificate.read_bytes())
    files = certificates.watch(settings)
    first = files.get()
    authorities.write_bytes(content)
    files._next_look = 0
    assert files.get() is first
    error = refusal_of(settings)
    assert "no certificate as PEM" in error.what
    assert error.where == str(authorities)


def test_a_certificate_that_ends_soon_is_told_and_used(authority, caplog):
    with caplog.at_level(logging.WARNING):
        certificates.watch(tls(authority.sign("server", lasts=timedelta(days=3))))
    assert "ends in 2 days" in caplog.text


def test_a_renewal_that_is_unsound_changes_nothing_but_the_log(authority, caplog):
    signed = authority.sign("server")
    files = certificates.watch(tls(signed))
    first = files.get()

    def look():
        files._next_look = 0
        return files.get()

    for broken in (b"", authority.sign("other").key.read_bytes()):
        good = signed.key.read_bytes()
        signed.key.write_bytes(broken)
        caplog.clear()
        assert look() is first
        assert look() is first
        assert caplog.text.count("The last good state stays in force") == 1
        signed.key.write_bytes(good)
    authority.sign("server", into=signed, lasts=timedelta(days=-1))
    assert look() is first
    signed.certificate.unlink()
    assert look() is first
    authority.sign("server", into=signed)
    renewed = look()
    assert renewed.chain == signed.certificate.read_bytes()
    assert renewed != first


def test_the_context_speaks_nothing_older_than_the_setting(authority):
    signed = authority.sign("server")
    for version, name in (("1.2", "TLSv1_2"), ("1.3", "TLSv1_3")):
        settings = tls(signed, minimum_version=version)
        assert certificates.context_of(certificates.watch(settings)).minimum_version.name == name
