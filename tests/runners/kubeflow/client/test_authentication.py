"""How the commands find Kubeflow Pipelines, and as whom they ask."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import ssl

import pytest
import yaml

from bike_pipeline.commands.cluster import submit_command
from bike_pipeline.errors import ClusterError, ConfigurationError
from tests.runners.kubeflow import pipelines_server
from tests.runners.kubeflow.pipelines_server import PipelinesServer


def test_a_token_comes_from_the_environment_or_a_file_that_is_read_again(call, server, spec, monkeypatch, tmp_path):
    server.token = "secret"
    with pytest.raises(ConfigurationError, match="nothing to show"):
        call(submit_command, "--spec", spec, authentication="token")
    monkeypatch.setenv("KF_PIPELINES_TOKEN", "secret")
    call(submit_command, "--spec", spec, authentication="token")
    monkeypatch.setenv("KF_PIPELINES_TOKEN", "stale")
    with pytest.raises(ClusterError, match="does not know who we are"):
        call(submit_command, "--spec", spec, authentication="token")
    monkeypatch.delenv("KF_PIPELINES_TOKEN")
    file = tmp_path / "token"
    file.write_text("secret\n", encoding="utf-8")
    for kind in ("token", "service_account"):
        call(submit_command, "--spec", spec, authentication=kind, token_file=file)
    file.write_text("", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="empty"):
        call(submit_command, "--spec", spec, authentication="service_account", token_file=file)
    assert not any("secret" in json.dumps(body) for _, body in server.bodies)


def test_a_token_that_the_kubelet_renews_is_used_while_waiting(call, server, spec, tmp_path, monkeypatch):
    server.token = "first"
    file = tmp_path / "token"
    file.write_text("first", encoding="utf-8")
    server.states = [("RUNNING", {}, ""), ("SUCCEEDED", {}, "")]

    def rotate(self, *arguments):
        server.token = "second"
        file.write_text("second", encoding="utf-8")
        return original(self, *arguments)

    original = PipelinesServer.post_runs
    monkeypatch.setattr(
        "tests.runners.kubeflow.pipelines_server.ROUTES",
        tuple((v, p, rotate if f is original else f, kind) for v, p, f, kind in pipelines_server.ROUTES),
    )
    assert "SUCCEEDED" in call(
        submit_command, "--spec", spec, "--wait", authentication="service_account", token_file=file
    )


def test_cookies_and_a_profile_of_a_multi_user_installation(call, server, spec, monkeypatch, tmp_path):
    server.cookie, server.multi_user = "authservice_session=abc", True
    monkeypatch.setenv("KF_PIPELINES_COOKIES", "authservice_session=abc")
    call(submit_command, "--spec", spec, authentication="cookies", user_namespace="team-a")
    monkeypatch.delenv("KF_PIPELINES_COOKIES")
    file = tmp_path / "cookies"
    file.write_text("authservice_session=abc\n", encoding="utf-8")
    call(submit_command, "--spec", spec, authentication="cookies", cookies_file=file, user_namespace="team-a")
    assert {one["namespace"] for one in server.experiments.values()} == {"team-a"}
    assert {one["namespace"] for one in server.pipelines.values()} == {"team-a"}
    assert not (tmp_path / ".config").exists()


@pytest.fixture
def certificate(tmp_path):
    """A certificate for the loopback address that signs itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "pipelines of a test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "certificate.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


def test_an_own_certificate_authority_is_trusted_where_it_is_named(call, server, spec, certificate, tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    address = server.address.replace("http:", "https:")
    with pytest.raises(ClusterError, match="certificate is not trusted") as error:
        call(submit_command, "--spec", spec, endpoint=address)
    assert "kubeflow.client.ca_cert" in error.value.fix
    call(submit_command, "--spec", spec, endpoint=address, ca_cert=certificate)
    with pytest.raises(ConfigurationError, match="no such file"):
        call(submit_command, "--spec", spec, endpoint=address, ca_cert=tmp_path / "nothing.pem")


def test_without_an_address_the_missing_cluster_is_named(call, spec):
    with pytest.raises(ConfigurationError, match="no address of Kubeflow Pipelines") as error:
        call(submit_command, "--spec", spec, endpoint="")
    assert "KF_PIPELINES_ENDPOINT" in error.value.fix


@pytest.fixture
def kubeconfig(server, tmp_path):
    """A kubeconfig with two contexts, both of the test's server behind the proxy of the Kubernetes API server."""
    server.prefix = "/api/v1/namespaces/pipelines/services/ml-pipeline:http/proxy"
    server.token = "of-the-user"
    user = {"name": "me", "user": {"token": "of-the-user"}}
    cluster = {"name": "test", "cluster": {"server": server.address}}
    contexts = [{"name": name, "context": {"cluster": "test", "user": "me"}} for name in ("staging", "production")]
    content = {"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "users": [user], "contexts": contexts}
    (tmp_path / "no-kubeconfig").write_text(
        yaml.safe_dump({**content, "current-context": "production"}), encoding="utf-8"
    )


def test_a_kubeconfig_leads_to_the_pipelines_of_its_cluster(call, server, spec, kubeconfig, monkeypatch):
    # The kubernetes client reads the variable when it is imported.
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", os.environ["KUBECONFIG"])
    said = call(submit_command, "--spec", spec, endpoint="", kube_context="staging", namespace="pipelines")
    assert "/pipeline/#/runs/details/" in said
    assert len(server.runs) == 1
    with pytest.raises(ConfigurationError, match="has no context 'nowhere'") as error:
        call(submit_command, "--spec", spec, endpoint="", kube_context="nowhere")
    assert error.value.fix == "choose one of: production, staging"


def test_the_address_from_the_environment_counts(call, server, spec, monkeypatch):
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.address)
    monkeypatch.setenv("KF_PIPELINES_UI_ENDPOINT", "https://kubeflow.example/pipeline")
    said = call(submit_command, "--spec", spec, endpoint="")
    assert "https://kubeflow.example/pipeline/#/runs/details/" in said
