"""Two pods of the watch loop, as the cluster made them: what a kubelet would start is started here, over MariaDB.

A pod's command, arguments, variables and secrets are read from the API server; only the volume and the address of the
database are this machine's.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from bike_pipeline.settings import load_settings
from bike_pipeline.use_cases.retraining import open_ledger
from tests import database_servers
from tests.cluster.control_plane import Api, eventually, program, running
from tests.cluster.manifests import one_of

SELECTOR = "app.kubernetes.io/component=watch"
SECONDS = 240


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[database_servers.Server]:
    program("kube-apiserver")
    with database_servers.mariadb(tmp_path_factory.mktemp("mariadb")) as server:
        yield server


@pytest.fixture
def pods(applied: Api) -> list[dict[str, Any]]:
    """The pods that the Deployment's controller made, with the secret that they name."""
    secret = {key: database_servers.ACCOUNT[f"BIKE_METADATA_{key.upper()}"] for key in ("user", "password")}
    manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bike-metadata"}, "stringData": secret}
    applied.apply(manifest)
    wanted = one_of("cluster", "Deployment", "bike-pipeline-watch")["spec"]["replicas"]

    def run() -> list[dict[str, Any]]:
        made = [one for one in applied.pods(SELECTOR) if one["status"].get("phase") == "Running"]
        return made if len(made) == wanted else []

    return eventually(run)


def command_of(
    api: Api, pod: dict[str, Any], volume: Path, database: database_servers.Server
) -> tuple[list[str], dict[str, str]]:
    """Return what the pod's container is started with, and the variables that its manifest gives it."""
    [container] = pod["spec"]["containers"]
    [mount] = [one for one in container["volumeMounts"] if one["name"] == "storage"]
    environment = {}
    for one in container["env"]:
        reference = one["valueFrom"]["secretKeyRef"]
        data = api.get("v1", "Secret", reference["name"])["data"]
        environment[one["name"]] = base64.b64decode(data[reference["key"]]).decode()
    name, *arguments = [*container["command"], *container.get("args", ())]
    assert name == "bike-pipeline"
    here = [
        text.replace(mount["mountPath"], str(volume)).replace(
            "host: mariadb, port: 3306", f"host: 127.0.0.1, port: {database.port}"
        )
        for text in arguments
    ]
    # Nothing is to be retrained in this test.
    return [sys.executable, "-m", "bike_pipeline.cli", *here, "--set", "retraining.triggers=[schedule]"], environment


def test_one_of_two_replicas_holds_the_lease_and_the_other_takes_over(
    applied: Api, pods: list[dict[str, Any]], database: database_servers.Server, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    commands = [command_of(applied, pod, tmp_path, database) for pod in pods]
    assert len(commands) == 2
    for name, value in commands[0][1].items():
        monkeypatch.setenv(name, value)
    sets = [text for before, text in zip(commands[0][0], commands[0][0][1:], strict=False) if before == "--set"]
    settings = load_settings(assignments=tuple(sets))

    def holder() -> str:
        return str((open_ledger(settings).lease() or {}).get("owner", ""))

    with ExitStack() as stack:
        processes: dict[str, subprocess.Popen[bytes]] = {}
        for pod, (command, environment) in zip(pods, commands, strict=True):
            folder = tmp_path / pod["metadata"]["name"]
            folder.mkdir()
            started = stack.enter_context(running(folder, *command, env={**os.environ, **environment}))
            processes[str(started.pid)] = started
        first = eventually(lambda: _of(processes, holder()), SECONDS)
        other = next(one for one in processes.values() if one is not first)
        # Both live, and there is one holder all the same, also after the lease was renewed.
        fence = open_ledger(settings).lease()["fence"]
        begun = open_ledger(settings).lease()["at"]
        eventually(lambda: open_ledger(settings).lease()["at"] > begun, SECONDS)
        assert _of(processes, holder()) is first
        assert other.poll() is None
        assert open_ledger(settings).lease()["fence"] == fence
        # As when a node is lost: nothing gives the lease back.
        first.kill()
        assert eventually(lambda: _of(processes, holder()) is other, SECONDS)
        assert open_ledger(settings).lease()["fence"] == fence + 1
        # And a pod that is told to end gives it back, and says that it was interrupted.
        other.terminate()
        assert other.wait(60) == 130
        assert holder() == ""


def _of(processes: dict[str, subprocess.Popen[bytes]], owner: str) -> subprocess.Popen[bytes] | None:
    return processes[owner.split(":")[1]] if owner else None
