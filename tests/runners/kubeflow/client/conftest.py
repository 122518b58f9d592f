"""A server of the API of Kubeflow Pipelines, and the commands that call it."""

from __future__ import annotations

import pytest
import yaml
from click.testing import CliRunner

from tests.runners.kubeflow.pipelines_server import PipelinesServer

TASKS = ("Transform", "Trainer")


def spec_with(value):
    return {
        "pipelineInfo": {"name": "bike-demand"},
        "schemaVersion": "2.1.0",
        "components": {"comp": {"executorLabel": "e"}},
        "deploymentSpec": {"executors": {"e": {"container": {"image": "image", "command": [value]}}}},
        "root": {"dag": {"tasks": {n: {"taskInfo": {"name": n}, "componentRef": {"name": "comp"}} for n in TASKS}}},
    }


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch, tmp_path):
    for variable in ("ENDPOINT", "UI_ENDPOINT", "TOKEN", "COOKIES", "IAP_OAUTH2_CLIENT_ID"):
        monkeypatch.delenv(f"KF_PIPELINES_{variable}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "no-kubeconfig"))


@pytest.fixture
def server():
    with PipelinesServer() as server:
        yield server
        assert server.refused == [], "a request had a body that the API does not know"


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "spec.yaml"
    platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {"e": {}}}}}}
    path.write_text(yaml.safe_dump_all([spec_with("true"), platform]), encoding="utf-8")
    return path


@pytest.fixture
def call(server):
    def run(command, *arguments, **values):
        values = {"poll_seconds": 0.01, "endpoint": server.address, **values}
        options = [f"--set=kubeflow.client.{key}={value if value != '' else repr('')}" for key, value in values.items()]
        done = CliRunner().invoke(command, [*map(str, arguments), *options])
        if done.exception and not isinstance(done.exception, SystemExit):
            done.exception.shown = done.output
            raise done.exception
        return done.output

    return run
