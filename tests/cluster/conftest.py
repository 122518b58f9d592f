"""The control plane is started once: everything that tests apply goes into it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.control_plane import NAMESPACE, Api, api_server, controllers
from tests.cluster.manifests import objects

MODULES = ("gateway.networking", "serving.kserve.io", "monitoring.coreos.com", "trainer.kubeflow.org", "crd")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys and logs of the control plane."""
    return tmp_path_factory.mktemp("cluster")


@pytest.fixture(scope="session")
def server(folder: Path) -> Iterator[Api]:
    """An API server that has the definitions of custom resources that the manifests need."""
    with api_server(folder) as api:
        for module in MODULES:
            api.define(module)
        yield api


@pytest.fixture(scope="session")
def cluster(server: Api, folder: Path) -> Iterator[Api]:
    """The server, with nodes and with controllers that act on what is applied."""
    with controllers(server, folder):
        yield server


@pytest.fixture(scope="session")
def applied(cluster: Api) -> Api:
    """The cluster with the overlay `cluster` in it, a volume for its claim, and what an installation brings."""
    cluster.deploy(NAMESPACE, objects("cluster"))
    return cluster
