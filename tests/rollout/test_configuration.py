"""What TF Serving is told is what the settings say, in files that its own protos read."""

from __future__ import annotations

import json
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from google.protobuf import text_format
from tensorflow_serving.config import logging_config_pb2, model_server_config_pb2

from bike_pipeline.commands.serve import serving_config_command as command
from bike_pipeline.errors import ConfigurationError, StorageError
from bike_pipeline.rollout import configuration
from bike_pipeline.settings import load_settings
from tests.rollout.tf_serving_messages import message_class

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = ROOT / "configs" / "serving"


def settings_of(*assignments):
    return load_settings(assignments=tuple(f"serving.configuration.{text}" for text in assignments))


def parsed(content, name, message):
    return text_format.Parse(content[name], message)


def models_of(settings, served=None):
    content = configuration.files(settings, COMMITTED, served)
    return parsed(content, "models.config", model_server_config_pb2.ModelServerConfig()).model_config_list.config


def test_the_committed_files_are_what_the_base_settings_give(monkeypatch):
    monkeypatch.chdir(ROOT)
    content = configuration.files(load_settings(), COMMITTED)
    assert configuration.differing(content, COMMITTED) == []
    assert sorted(path.name for path in COMMITTED.iterdir()) == sorted(content)


def test_models_config_is_read_back_by_the_official_proto():
    (model,) = models_of(load_settings())
    assert (model.name, model.base_path, model.model_platform) == ("bike_demand", "/models/bike_demand", "tensorflow")
    assert model.model_version_policy.latest.num_versions == 1
    assert not model.version_labels
    # The official image refuses a models.config that asks for request logs.
    assert not model.HasField("logging_config")


def test_every_version_policy_is_written():
    (model,) = models_of(settings_of("versions.policy=all"))
    assert model.model_version_policy.HasField("all")
    (model,) = models_of(settings_of("versions.count=2"))
    assert model.model_version_policy.latest.num_versions == 2
    fixed = "versions={policy: specific, count: 1, versions: [7, 9], labels: {stable: 9}}"
    (model,) = models_of(settings_of(fixed))
    assert list(model.model_version_policy.specific.versions) == [7, 9]
    assert dict(model.version_labels) == {"stable": 9}
    promoted = configuration.ServedVersions((3, 5), {"stable": 5, "canary": 3})
    (model,) = models_of(settings_of("versions.policy=promoted"), promoted)
    assert list(model.model_version_policy.specific.versions) == [3, 5]
    assert dict(model.version_labels) == {"stable": 5, "canary": 3}


def test_promoted_needs_a_promoted_version():
    with pytest.raises(ConfigurationError, match="needs a promoted version"):
        configuration.files(settings_of("versions.policy=promoted"), COMMITTED)


def test_batching_monitoring_and_logging_are_read_back():
    content = configuration.files(
        settings_of(
            "batching.max_batch_size=64",
            "batching.allowed_batch_sizes=[8, 64]",
            "batching.batch_timeout_micros=0",
            "request_logging.enabled=true",
            "request_logging.sampling_rate=0.25",
        ),
        COMMITTED,
    )
    batching = parsed(content, "batching.config", message_class("BatchingParameters")())
    assert batching.max_batch_size.value == 64
    assert batching.HasField("batch_timeout_micros")
    assert batching.batch_timeout_micros.value == 0
    assert list(batching.allowed_batch_sizes) == [8, 64]
    monitoring = parsed(content, "monitoring.config", message_class("MonitoringConfig")())
    assert monitoring.prometheus_config.enable
    assert monitoring.prometheus_config.path == "/monitoring/prometheus/metrics"
    logging = parsed(content, "logging.config", logging_config_pb2.LoggingConfig())
    assert logging.sampling_config.sampling_rate == 0.25
    models = parsed(content, "models.config", model_server_config_pb2.ModelServerConfig())
    assert models.model_config_list.config[0].logging_config == logging


def test_the_messages_of_our_own_have_the_numbers_of_tf_servings():
    # From session_bundle_config.proto and monitoring_config.proto.
    numbers = {field.name: field.number for field in message_class("BatchingParameters").DESCRIPTOR.fields}
    assert numbers == {
        "max_batch_size": 1,
        "batch_timeout_micros": 2,
        "max_enqueued_batches": 3,
        "num_batch_threads": 4,
        "thread_pool_name": 5,
        "allowed_batch_sizes": 6,
        "pad_variable_length_inputs": 7,
    }
    batching = message_class("BatchingParameters")()
    batching.max_batch_size.value = 5
    assert batching.SerializeToString() == b"\x0a\x02\x08\x05"
    monitoring = message_class("MonitoringConfig")()
    monitoring.prometheus_config.enable = True
    assert monitoring.SerializeToString() == b"\x0a\x02\x08\x01"


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("versions.policy=specific", "needs one at least"),
        ("versions={policy: specific, versions: [3], labels: {stable: 4}}", "a label needs a version that serves"),
        ("batching.allowed_batch_sizes=[8, 4]", "must ascend"),
        ("batching.allowed_batch_sizes=[8]", "end with max_batch_size"),
        ("container.user=0:0", "user"),
        ("container.rest_port=8500", "must differ"),
        ("container.image=tensorflow/serving", "image"),
    ],
    ids=["no-versions", "label", "descending", "last-size", "root", "one-port", "no-tag"],
)
def test_settings_that_tf_serving_would_refuse_are_refused(setting, problem):
    with pytest.raises(ConfigurationError, match=problem):
        settings_of(setting)


def service_of(settings, folder=COMMITTED):
    (service,) = yaml.safe_load(configuration.files(settings, folder)["compose.yaml"])["services"].values()
    return service


def test_compose_runs_the_image_with_exactly_these_files():
    settings = load_settings()
    content = configuration.files(settings, COMMITTED)
    service = service_of(settings)
    options = dict(argument.removeprefix("--").split("=", 1) for argument in service["command"])
    mounts = {volume["target"]: volume for volume in service["volumes"]}
    assert mounts["/etc/tf-serving"]["source"] == "."
    named = {value for name, value in options.items() if name.endswith("_file")}
    assert named == {f"/etc/tf-serving/{name}" for name in content if name.endswith(".config")} - {
        "/etc/tf-serving/logging.config"
    }
    (model,) = models_of(settings)
    assert str(Path(model.base_path).parent) in mounts
    assert {int(options["port"]), int(options["rest_api_port"])} == {port["target"] for port in service["ports"]}
    assert "enable_batching" in options


def test_compose_gives_the_container_no_more_than_it_needs():
    service = service_of(load_settings())
    assert all(volume["read_only"] and not volume["bind"]["create_host_path"] for volume in service["volumes"])
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert "0" not in service["user"].split(":")
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert {port["host_ip"] for port in service["ports"]} == {"127.0.0.1"}


def test_compose_without_batching_names_no_batching_file():
    content = configuration.files(settings_of("batching.enabled=false"), COMMITTED)
    assert "batching.config" not in content
    assert "batching" not in content["compose.yaml"]


def test_the_serving_folder_is_named_relative_to_the_file(tmp_path):
    settings = load_settings(assignments=(f"serving.base_path={tmp_path}/models-here",))
    volume = service_of(settings, tmp_path / "configs" / "deep")["volumes"][1]
    assert volume["source"] == "${BIKE_SERVING_BASE:-../../models-here}"


class _Status(BaseHTTPRequestHandler):
    state = "AVAILABLE"

    def do_GET(self):
        body = json.dumps({"model_version_status": [{"version": "3", "state": self.state}]}, indent=1).encode()
        self.send_response(200 if self.path == "/v1/models/bike_demand" else 404)
        self.end_headers()
        self.wfile.write(body if self.path == "/v1/models/bike_demand" else b"{}")

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(("state", "healthy"), [("AVAILABLE", True), ("LOADING", False), ("END", False)])
def test_the_health_check_tells_ready_from_not_ready(monkeypatch, state, healthy):
    monkeypatch.setattr(_Status, "state", state)
    server = HTTPServer(("127.0.0.1", 0), _Status)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        port = server.server_address[1]
        check = configuration.health_check(settings_of(f"container.rest_port={port}"))
        assert (subprocess.run(check, check=False, timeout=30).returncode == 0) is healthy
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert subprocess.run(check, check=False, timeout=30, stderr=subprocess.DEVNULL).returncode != 0


def test_the_command_writes_and_checks(tmp_path):
    runner = CliRunner()
    output = tmp_path / "tf-serving"
    written = runner.invoke(command, ["--output", str(output)], catch_exceptions=False)
    assert written.exit_code == 0
    assert {Path(line).name for line in written.output.split()} == {path.name for path in output.iterdir()}
    assert runner.invoke(command, ["--output", str(output), "--check"], catch_exceptions=False).exit_code == 0
    (output / "models.config").write_text("model_config_list {}", encoding="utf-8")
    (output / "batching.config").unlink()
    with pytest.raises(ConfigurationError, match=r"batching\.config, models\.config"):
        runner.invoke(command, ["--output", str(output), "--check"], catch_exceptions=False)
    assert (output / "models.config").read_text(encoding="utf-8") == "model_config_list {}"


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(StorageError, match="cannot write it"):
        configuration.write({"models.config": ""}, tmp_path / "file" / "folder")
