"""TLS from the gateway to servers on other machines, for which a gateway with mTLS before the real server stands."""

from __future__ import annotations

import socket
from contextlib import contextmanager

import pytest

from bike_pipeline.errors import ConfigurationError
from bike_pipeline.rollout.gateway import filters
from bike_pipeline.rollout.gateway.configuration import Upstream
from bike_pipeline.settings import load_settings
from bike_pipeline.settings.gateway import GatewaySettings
from tests.rollout.gateway.attacking import call, gateway_before, status
from tests.rollout.gateway.authorities import Authority, Mounted
from tests.rollout.gateway.running import promoted, running_gateway, shared
from tests.rollout.making import push
from tests.serving.server.asking import wait_until


@pytest.fixture(scope="module")
def authorities(tmp_path_factory):
    """The authority of servers, that of gateways, and one that nobody trusts."""
    folder = tmp_path_factory.mktemp("authorities")
    return [Authority(folder, name) for name in ("servers", "gateways", "strangers")]


@pytest.fixture(scope="module")
def remote(server, authorities, tmp_path_factory):
    """The port of a server that speaks TLS alone, with both APIs, and wants to see a gateway's certificate."""
    servers, gateways, _ = authorities
    signed = servers.sign("server", hosts=("localhost", "127.0.0.1"))
    files = f"certificate_file: {signed.certificate}, key_file: {signed.key}"
    tls = f"tls={{{files}, client_ca_file: {gateways.certificate}}}"
    with gateway_before(server, tmp_path_factory.mktemp("remote"), tls) as running:
        yield int(running.address.rpartition(":")[2])


def tls_by(authority, signed=None):
    own = f", certificate_file: {signed.certificate}, key_file: {signed.key}" if signed else ""
    return f"gateway.server_tls={{ca_file: {authority}{own}}}"


@contextmanager
def gateway_to(folder, port, *assignments, host="127.0.0.1", labels=("stable",), base="nothing"):
    servers = ",".join(f"{label}={host}:{port}:{port}" for label in labels)
    with running_gateway(folder / base, folder / "workspace", *assignments, options=("--servers", servers)) as gateway:
        yield gateway


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_both_protocols_are_asked_over_tls_by_the_gateways_own_certificate(remote, authorities, tmp_path, host):
    servers, gateways, _ = authorities
    with gateway_to(
        tmp_path, remote, tls_by(servers.certificate, gateways.sign("own", client=True)), host=host
    ) as gateway:
        assert status(gateway.address) == 200
        assert call(gateway.address) == "OK"


@pytest.mark.parametrize("wrong", ["authority", "none", "strange", "host", "plain"])
def test_no_server_is_asked_that_is_not_who_it_should_be_and_none_answers_a_stranger(
    server, remote, authorities, tmp_path, wrong
):
    servers, gateways, strangers = authorities
    trusted, own, host, port = servers.certificate, gateways.sign("own", client=True), "127.0.0.1", remote
    if wrong == "authority":
        trusted = strangers.certificate
    elif wrong == "none":
        own = None
    elif wrong == "strange":
        own = strangers.sign("stranger", client=True)
    elif wrong == "host":
        # 127.0.0.2 is the same server, and not what its certificate says.
        host = "127.0.0.2"
    else:
        port = server.rest.rpartition(":")[2]
    with gateway_to(tmp_path, port, tls_by(trusted, own), host=host) as gateway:
        assert status(gateway.address) == 503
        assert call(gateway.address) == "UNAVAILABLE"


def test_a_label_is_routed_when_its_server_has_its_version_over_tls(remote, authorities, tmp_path):
    servers, gateways, _ = authorities
    push(tmp_path / "serving" / "bike_demand", 1, 2)
    # The server has version 1, which is asked for as the canary.
    shared(promoted(tmp_path / "serving", 2), 1, "canary", 50)
    tls = tls_by(servers.certificate, gateways.sign("own", client=True))
    with gateway_to(tmp_path, remote, tls, labels=("stable", "canary"), base="serving") as gateway:
        wait_until(lambda: "canary 50 %" in gateway.errors.read_text())
        wait_until(lambda: status(gateway.address) == 200 and "canary" in {x["bike"]["track"] for x in gateway.lines()})


def test_renewed_authorities_are_believed_without_a_restart(remote, authorities, tmp_path):
    servers, gateways, strangers = authorities
    own = gateways.sign("own", client=True)
    mounted = Mounted(tmp_path / "secret", {"ca.crt": strangers.certificate})
    with gateway_to(tmp_path, remote, tls_by(mounted.folder / "ca.crt", own)) as gateway:
        assert status(gateway.address) == 503
        mounted.renew({"ca.crt": servers.certificate})
        wait_until(lambda: status(gateway.address) == 200)


@pytest.mark.parametrize(
    ("text", "rest", "grpc"),
    [
        ("host", "host:8501", "host:8500"),
        ("10.0.0.1:1:2", "10.0.0.1:1", "10.0.0.1:2"),
        ("::1", "[::1]:8501", "[::1]:8500"),
        ("2001:db8::a:1", "[2001:db8::a:1]:8501", "[2001:db8::a:1]:8500"),
        ("[2001:db8::a]", "[2001:db8::a]:8501", "[2001:db8::a]:8500"),
        ("[::1]:1:2", "[::1]:1", "[::1]:2"),
        # As it always was: a host with two ports, although its letters are hexadecimal.
        ("dead:1:2", "dead:1", "dead:2"),
    ],
)
def test_a_server_has_a_name_or_an_address_of_either_kind(text, rest, grpc):
    assert Upstream.of(GatewaySettings(servers={"stable": text}).servers["stable"]) == Upstream(rest, grpc)


@pytest.mark.parametrize("text", ["a:b", "::1:8501:8500:9:9:9:9:9:9", "[::1", "[::g]", "1:2", "a b", ":::"])
def test_what_is_no_address_of_a_server_is_refused(text):
    with pytest.raises(ValueError, match=r"servers\.stable"):
        GatewaySettings(servers={"stable": text})


def test_a_server_is_asked_at_an_address_of_ipv6_and_the_gateway_listens_at_one(server, tmp_path):
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    with gateway_before(server, tmp_path, "host=::1") as behind:
        assert behind.address.startswith("[::1]:")
        port = behind.address.rpartition(":")[2]
        with gateway_to(tmp_path / "before", port, host="[::1]") as gateway:
            assert status(gateway.address) == 200
            assert call(gateway.address) == "OK"


def test_settings_of_tls_to_servers_that_cannot_be_meant_are_refused(tmp_path):
    for wrong, words in (("{certificate_file: a}", "together"), ("{certificate_file: a, key_file: b}", "ca_file")):
        with pytest.raises(ConfigurationError, match=words):
            load_settings(None, (f"gateway.server_tls={wrong}",))
    (tmp_path / "empty.pem").write_text("")
    with pytest.raises(ConfigurationError, match="no certificate to speak TLS with"):
        filters.check(load_settings(None, (f"gateway.server_tls.ca_file={tmp_path}/empty.pem",)).gateway)
