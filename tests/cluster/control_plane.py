"""A real Kubernetes control plane on loopback: etcd, API server, controllers, scheduler, and nodes that kwok pretends.

No container is started: kwok says of each pod that is put on one of its nodes that it runs and is ready.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import requests
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.database_servers import free_port
from tests.rollout.gateway.authorities import Authority

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import cluster_tools

SECONDS = 90
NAMESPACE = "bike"
# Of Prometheus and its adapter.
MONITORING = "monitoring"
_T = TypeVar("_T")


def program(name: str) -> str:
    """Return the path of one of `cluster_tools`' programs; skip the test where `make test-cluster` does not run it."""
    if "CLUSTER_TOOLS" not in os.environ:
        pytest.skip("`make test-cluster` starts Kubernetes' own servers")
    path = cluster_tools.find(name)
    if path is None:
        pytest.fail(f"no {name} on this machine: `make cluster-tools` builds it (needs Go)")
    return str(path)


def eventually(look: Callable[[], _T], seconds: float = SECONDS) -> _T:
    """Return what `look` returns as soon as that is true; fail with the last look after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        if seen := look():
            return seen
        assert time.monotonic() < deadline, f"still {seen!r}"
        time.sleep(0.2)


class RefusedError(Exception):
    """The API server refuses a request; the text is its own."""


class Api:
    """Plain requests to an API server.

    Attributes:
        address: where it is.
        token: who asks.
        authority: the file of the certificate that the server is known by.
    """

    def __init__(self, address: str, token: str, authority: Path) -> None:
        """Keep where it is; discovery is asked when a kind is first named."""
        self.address, self.token, self.authority = address, token, authority
        self._places: dict[tuple[str, str], tuple[str, bool]] = {}

    def __call__(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        """Return the answer to a request, parsed.

        Raises:
            RefusedError: the server answers with an error.
        """
        answer = requests.request(
            method,
            self.address + path,
            data=None if body is None else json.dumps(body),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": kind},
            verify=str(self.authority),
            timeout=60,
        )
        if not answer.ok:
            try:
                raise RefusedError(answer.json()["message"])
            except ValueError:
                raise RefusedError(f"{answer.status_code} {answer.text}") from None
        return answer.json() if answer.content.startswith(b"{") else answer.text

    def path(self, manifest: Mapping[str, Any], namespace: str = NAMESPACE) -> str:
        """Return the path of an object."""
        version, kind = manifest["apiVersion"], manifest["kind"]
        group = f"/apis/{version}" if "/" in version else f"/api/{version}"
        if (version, kind) not in self._places:
            for one in self("GET", group)["resources"]:
                if "/" not in one["name"]:
                    self._places[version, one["kind"]] = one["name"], one["namespaced"]
        name, namespaced = self._places[version, kind]
        within = f"/namespaces/{manifest['metadata'].get('namespace', namespace)}" if namespaced else ""
        return f"{group}{within}/{name}/{manifest['metadata']['name']}"

    def apply(self, manifest: Mapping[str, Any], *, dry_run: bool = False) -> Any:
        """Apply a manifest on the server, which takes no field that it does not know."""
        options = "?fieldManager=tests&fieldValidation=Strict&force=true" + "&dryRun=All" * dry_run
        return self("PATCH", self.path(manifest) + options, manifest, "application/apply-patch+yaml")

    def get(self, version: str, kind: str, name: str, namespace: str = NAMESPACE) -> Any:
        """Return an object."""
        return self("GET", self.path({"apiVersion": version, "kind": kind, "metadata": {"name": name}}, namespace))

    def deploy(self, namespace: str, manifests: Iterable[dict[str, Any]]) -> None:
        """Apply manifests in a namespace, with what an installation brings: the public key, volumes."""
        keys = {"kind": "ConfigMap", "metadata": {"name": "bike-model-keys"}, "data": {"signing.pub": ""}}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        for one in [{"apiVersion": "v1", **keys}, *manifests]:
            one["metadata"]["namespace"] = namespace
            if one["kind"] == "PersistentVolumeClaim":
                self.apply(_volume(one))
            eventually(lambda one=one: self._is_applied(one))

    def _is_applied(self, manifest: dict[str, Any]) -> bool:
        try:
            return bool(self.apply(manifest))
        except RefusedError as error:
            # A new namespace gets its service account a moment later.
            if "service account" in str(error):
                return False
            raise

    def pods(self, selector: str) -> list[Any]:
        """Return the pods with some labels."""
        return list(self("GET", f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector={selector}")["items"])

    def kubeconfig(self, file: Path) -> Path:
        """Write what other programs find and ask the server with."""
        server = {"server": self.address, "certificate-authority": str(self.authority)}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": server}],
            "users": [{"name": "tests", "user": {"token": self.token}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests"}}],
            "current-context": "tests",
        }
        file.write_text(yaml.safe_dump(content), encoding="utf-8")
        return file

    def define(self, module: str) -> None:
        """Install the definitions of custom resources whose files begin with `module`."""
        files = sorted((cluster_tools.FOLDER / "definitions").glob(f"{module}*.yaml"))
        if not files:
            pytest.fail(f"no definitions of {module}: `make cluster-tools` fetches them")
        # Two megabytes of definitions take Python's own reader half a minute.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        made = [one for file in files for one in yaml.load_all(file.read_bytes(), loader) if one]
        for one in made:
            self.apply(one)
        for one in made:
            if one["kind"] == "CustomResourceDefinition":
                eventually(lambda one=one: self._is_served(one))

    def _is_served(self, definition: Mapping[str, Any]) -> bool:
        conditions = self("GET", self.path(definition)).get("status", {}).get("conditions") or ()
        return ("Established", "True") in [(one["type"], one["status"]) for one in conditions]


@contextmanager
def running(folder: Path, *command: str | Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program with its log in `folder`; stop it afterwards."""
    arguments = list(map(str, command))
    with (folder / f"{Path(arguments[0]).name}.log").open("ab") as log:
        process = subprocess.Popen(arguments, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=folder, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def api_server(folder: Path) -> Iterator[Api]:
    """Run etcd and the API server, which authorizes by roles as clusters do."""
    programs = {name: program(name) for name in ("etcd", "kube-apiserver")}
    # How the server shows other servers of its API who it is, and whom it asks for.
    authority = Authority(folder, "front-proxy")
    proxy = authority.sign("front-proxy-client", client=True)
    etcd, peers, port = free_port(), free_port(), free_port()
    token = secrets.token_hex(16)
    (folder / "tokens.csv").write_text(f"{token},admin,1,system:masters\n", encoding="utf-8")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (folder / "service-accounts.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    with running(
        folder,
        programs["etcd"],
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls=http://127.0.0.1:{etcd}",
        f"--advertise-client-urls=http://127.0.0.1:{etcd}",
        f"--listen-peer-urls=http://127.0.0.1:{peers}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{peers}",
        f"--initial-cluster=default=http://127.0.0.1:{peers}",
        # What is in it is gone with the test.
        "--unsafe-no-fsync",
        # The largest definition of a custom resource is larger than what etcd takes by default.
        "--max-request-bytes=8000000",
    ):
        key_file = folder / "service-accounts.key"
        with running(
            folder,
            programs["kube-apiserver"],
            f"--etcd-servers=http://127.0.0.1:{etcd}",
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
            f"--cert-dir={folder / 'certificates'}",
            f"--token-auth-file={folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            f"--service-account-key-file={key_file}",
            f"--service-account-signing-key-file={key_file}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--endpoint-reconciler-type=none",
            f"--requestheader-client-ca-file={authority.certificate}",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={proxy.certificate}",
            f"--proxy-client-key-file={proxy.key}",
        ) as process:
            api = Api(f"https://127.0.0.1:{port}", token, folder / "certificates" / "apiserver.crt")
            eventually(lambda: _ready(api, process))
            for namespace in (NAMESPACE, MONITORING):
                api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
            yield api


def _ready(api: Api, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "the API server has ended; see its log"
    try:
        return bool(api("GET", "/readyz") == "ok")
    except (OSError, RefusedError):
        return False


@contextmanager
def controllers(api: Api, folder: Path, nodes: int = 2) -> Iterator[None]:
    """Run the controllers, the scheduler and kwok, whose nodes are there on return.

    Args:
        api: a server that `api_server` runs with the same folder.
        folder: of keys and logs.
        nodes: how many.
    """
    programs = [program(name) for name in ("kube-controller-manager", "kube-scheduler", "kwok")]
    config = api.kubeconfig(folder / "kubeconfig")
    shared = (f"--kubeconfig={config}", "--leader-elect=false", "--bind-address=127.0.0.1")
    manager = (
        f"--service-account-private-key-file={folder / 'service-accounts.key'}",
        f"--root-ca-file={api.authority}",
        "--horizontal-pod-autoscaler-sync-period=2s",
        # Each with the rights that it has in a cluster, and no more.
        "--use-service-account-credentials=true",
        f"--secure-port={free_port()}",
        f"--cert-dir={folder / 'manager-certificates'}",
    )
    scheduler = (f"--secure-port={free_port()}", f"--cert-dir={folder / 'scheduler-certificates'}")
    definitions = cluster_tools.FOLDER / "definitions"
    stages = [f"--config={path}" for name in ("node", "pod") for path in sorted(definitions.glob(f"{name}-*.yaml"))]
    assert stages, "`make cluster-tools` fetches what kwok is to say of pods"
    kwok = (f"--kubeconfig={config}", "--manage-all-nodes=true", "--node-lease-duration-seconds=40", *stages)
    with (
        running(folder, programs[0], *shared, *manager),
        running(folder, programs[1], *shared, *scheduler),
        running(folder, programs[2], *kwok),
    ):
        for number in range(nodes):
            api.apply(_node(f"node-{number}"))
        eventually(lambda: _has_default_account(api))
        yield


def _volume(claim: dict[str, Any]) -> dict[str, Any]:
    namespace, name = claim["metadata"]["namespace"], claim["metadata"]["name"]
    specification = {
        "capacity": claim["spec"]["resources"]["requests"],
        "accessModes": claim["spec"]["accessModes"],
        "hostPath": {"path": "/nowhere"},
        "claimRef": {"namespace": namespace, "name": name},
    }
    metadata = {"name": f"{name}-{namespace}"}
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": metadata, "spec": specification}


def _node(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"allocatable": {"cpu": "16", "memory": "64Gi", "pods": "110"}},
    }


def _has_default_account(api: Api) -> bool:
    # Without it, no pod is admitted.
    try:
        return bool(api.get("v1", "ServiceAccount", "default"))
    except RefusedError:
        return False
