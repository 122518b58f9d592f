"""Addresses, settings and secrets; encrypted connections of both protocols."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import subprocess
import sys

import grpc
import pytest

from bike_pipeline.errors import ConfigurationError
from bike_pipeline.serving import clients
from bike_pipeline.settings import load_settings
from tests.serving.clients.asking import ask, both_ways, to
from tests.serving.clients.scripted import outputs, over_grpc, prediction, rest


def found(address="", *assignments, **options):
    settings = load_settings(assignments=tuple(f"serving.client.{text}" for text in assignments))
    return clients.connection(settings, address, **options)


@pytest.mark.parametrize(
    ("address", "options", "where"),
    [
        ("", {}, "http://127.0.0.1:8501"),
        ("", {"protocol": "grpc"}, "grpc://127.0.0.1:8500"),
        ("server:9000", {}, "http://server:9000"),
        ("http://server/", {}, "http://server:8501"),
        ("https://server:443", {}, "https://server:443"),
        ("grpc://[::1]:7000", {}, "grpc://[::1]:7000"),
        ("grpcs://server", {"protocol": "grpc"}, "grpcs://server:8500"),
        ("[::1]", {}, "http://[::1]:8501"),
    ],
)
def test_addresses(address, options, where):
    assert found(address, **options).where == where


@pytest.mark.parametrize(
    "address",
    [
        "ftp://server",
        "http://",
        "server:port",
        "server:99999",
        "http://server/v1/models",
        "a b",
        "user:x@server",
        "http://server?x=1",
        "[::1",
    ],
)
def test_what_is_no_address(address):
    with pytest.raises(ConfigurationError, match="no address of a model server"):
        found(address)


def test_an_address_and_an_option_that_contradict_each_other():
    with pytest.raises(ConfigurationError, match="says rest, --protocol says grpc"):
        found("http://server", protocol="grpc")
    with pytest.raises(ConfigurationError, match="a version and a label"):
        found("server", version=1, label="stable")


def test_a_certificate_says_that_the_connection_is_encrypted():
    assert found("server", "ca_file=ca.pem").where == "https://server:8501"
    assert found("server", "tls=true", protocol="grpc").where == "grpcs://server:8500"


def test_files_below_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    home = found("", "ca_file=~/ca.pem", "certificate=~/client.pem", "key=~/client.key")
    assert (home.ca_file, home.key) == (f"{tmp_path}/ca.pem", f"{tmp_path}/client.key")
    with pytest.raises(ConfigurationError, match=r"ca\.pem.*cannot read it"):
        clients.connect(home)


def test_secrets_come_from_the_environment_only(monkeypatch):
    monkeypatch.setenv("BIKE_SERVING_TOKEN", " t0ken\n")
    monkeypatch.setenv("BIKE_SERVING_API_KEY", "k3y")
    assert found().credentials == {"authorization": "Bearer t0ken", "x-api-key": "k3y"}
    monkeypatch.setenv("BIKE_SERVING_TOKEN", "two\nlines")
    with pytest.raises(ConfigurationError, match="BIKE_SERVING_TOKEN") as caught:
        found()
    assert "two" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="unknown setting"):
        load_settings(assignments=("serving.client.token=x",))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A certificate authority and what it signed for the server and for a client; folder of PEM files."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder = tmp_path_factory.mktemp("certificates")
    now = datetime.datetime.now(datetime.UTC)

    def issue(name, issuer=None, issuer_key=None):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer or subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        )
        if issuer is not None:
            names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(issuer_key or key, hashes.SHA256())
        encoding = serialization.Encoding.PEM
        (folder / f"{name}.pem").write_bytes(certificate.public_bytes(encoding))
        (folder / f"{name}.key").write_bytes(
            key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        return subject, key

    authority = issue("ca")
    issue("server", *authority)
    issue("client", *authority)
    issue("stranger")
    return folder


def _server(certificates, protocol, mutual):
    read = {name: (certificates / name).read_bytes() for name in ("server.key", "server.pem", "ca.pem")}
    if protocol == "grpc":
        credentials = grpc.ssl_server_credentials(
            [(read["server.key"], read["server.pem"])], read["ca.pem"] if mutual else None, mutual
        )
        return over_grpc(prediction(1, 2), credentials=credentials)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    if mutual:
        context.load_verify_locations(certificates / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
    return rest(outputs(1, 2), context=context)


@both_ways
@pytest.mark.parametrize("protocol", ["rest", "grpc"])
class TestEncrypted:
    def test_a_server_that_the_authority_vouches_for(self, way, protocol, certificates):
        with _server(certificates, protocol, mutual=False) as server:
            connection = to(server.port, protocol, tls=True, ca_file=str(certificates / "ca.pem"))
            assert ask(way, connection).tolist() == [1, 2]

    @pytest.mark.parametrize("trusted", ["", "stranger.pem"])
    def test_a_server_that_nobody_vouches_for_is_not_asked(self, way, protocol, trusted, certificates):
        with _server(certificates, protocol, mutual=False) as server:
            connection = to(server.port, protocol, tls=True, ca_file=trusted and str(certificates / trusted))
            with pytest.raises(clients.UnavailableError, match="ca_file") as caught:
                ask(way, connection)
        assert not server.asked
        assert "tries" not in str(caught.value)

    def test_both_sides_prove_who_they_are(self, way, protocol, certificates):
        names = {"ca_file": "ca.pem", "certificate": "client.pem", "key": "client.key"}
        files = {name: str(certificates / file) for name, file in names.items()}
        with _server(certificates, protocol, mutual=True) as server:
            assert ask(way, to(server.port, protocol, tls=True, **files)).tolist() == [1, 2]
            with pytest.raises(clients.UnavailableError):
                ask(way, to(server.port, protocol, tls=True, ca_file=files["ca_file"]))
        assert len(server.asked) == 1

    def test_files_that_are_no_certificates(self, way, protocol, certificates, tmp_path):
        (tmp_path / "no.pem").write_text("no certificate", encoding="utf-8")
        for file in ("no.pem", "absent.pem"):
            with pytest.raises(ConfigurationError, match=file):
                ask(way, to(1, protocol, tls=True, ca_file=str(tmp_path / file)))
        files = {"certificate": str(tmp_path / "no.pem"), "key": str(certificates / "client.key")}
        with pytest.raises(ConfigurationError, match=r"no\.pem"):
            ask(way, to(1, protocol, tls=True, ca_file=str(certificates / "ca.pem"), **files))


def test_no_client_imports_tensorflow_and_tensorflow_works_afterwards():
    code = (
        "import sys\n"
        "from bike_pipeline.serving.clients import Connection, connect, connect_async\n"
        "for protocol in ('rest', 'grpc'):\n"
        "    connect(Connection('127.0.0.1', 1, protocol, 'm')).close()\n"
        "    connect_async(Connection('127.0.0.1', 1, protocol, 'm'))\n"
        "assert 'tensorflow' not in sys.modules\n"
        "from tensorflow_serving.apis import predict_pb2, prediction_log_pb2\n"
        "import tensorflow as tf\n"
        "request = predict_pb2.PredictRequest()\n"
        "request.inputs['x'].CopyFrom(tf.make_tensor_proto([1.0]))\n"
        "print(float(tf.make_ndarray(request.inputs['x'])[0]) + 41)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "42.0", done.stderr
