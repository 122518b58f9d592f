"""TF Serving's configuration files, and the compose.yaml that runs it with exactly these, from the settings."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bike_pipeline.errors import ConfigurationError
from bike_pipeline.storage.atomic_files import replace_file

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings
    from bike_pipeline.settings.serving_configuration import RequestLoggingSettings

MODELS_FILE, BATCHING_FILE, MONITORING_FILE = "models.config", "batching.config", "monitoring.config"
LOGGING_FILE, COMPOSE_FILE = "logging.config", "compose.yaml"
# Where compose.yaml mounts the folder that it stands in.
CONFIGURATION_FOLDER = "/etc/tf-serving"
# Names another folder of this machine as the serving base path, without generating anew.
BASE_VARIABLE = "BIKE_SERVING_BASE"
_HEADER = "# Written by `bike-pipeline serving-config`; a change belongs into the settings (serving.configuration).\n"


@dataclass(frozen=True)
class ServedVersions:
    """The promoted versions that a server is to load, and the version of each label."""

    versions: tuple[int, ...]
    labels: Mapping[str, int]


def files(settings: Settings, folder: Path, served: ServedVersions | None = None) -> dict[str, str]:
    """Return the content of every file of `folder` by its name; compose.yaml names the base path relative to it.

    Raises:
        ConfigurationError: the policy is `promoted`, and `served`, what is promoted, is empty.
    """
    configuration = settings.serving.configuration
    monitoring = configuration.monitoring
    content = {
        MODELS_FILE: _text(_models_config(settings, served)),
        # A MonitoringConfig (TF Serving's monitoring_config.proto).
        MONITORING_FILE: _fields_text({"prometheus_config": {"enable": monitoring.enabled, "path": monitoring.path}}),
        LOGGING_FILE: _text(_logging(configuration.request_logging)),
        COMPOSE_FILE: _compose(settings, folder),
    }
    if configuration.batching.enabled:
        content[BATCHING_FILE] = _batching(settings)
    return {name: _HEADER + text for name, text in sorted(content.items())}


def proto_text(message: Any) -> str:
    """Return a message as the text of a file that says who wrote it."""
    return _HEADER + _text(message)


def _models_config(settings: Settings, served: ServedVersions | None) -> Any:
    chosen = settings.serving.configuration.versions
    if chosen.policy == "promoted" and (served is None or not served.versions):
        raise ConfigurationError(
            "the policy `promoted` needs a promoted version, and there is none",
            where="serving.configuration.versions.policy",
            fix="promote one (`bike-pipeline promote`), or start with `latest`",
        )
    if chosen.policy != "promoted" or served is None:
        served = ServedVersions(chosen.versions, chosen.labels)
    config = promoted_config(
        settings.serving.model_name,
        base_path_in_container(settings),
        served,
        settings.serving.configuration.request_logging,
    )
    policy = config.model_config_list.config[0].model_version_policy
    if chosen.policy == "all":
        policy.all.SetInParent()
    elif chosen.policy == "latest":
        policy.latest.num_versions = chosen.count
    return config


def promoted_config(name: str, base_path: str, served: ServedVersions, request_logging: RequestLoggingSettings) -> Any:
    """Return the ModelServerConfig (a proto of `tensorflow-serving-api`) of a model that serves exactly these versions.

    `base_path` is the model's base path as the server sees it.
    """
    from bike_pipeline.serving.protos import model_server_config_pb2

    config = model_server_config_pb2.ModelServerConfig()
    model = config.model_config_list.config.add(name=name, base_path=base_path, model_platform="tensorflow")
    model.model_version_policy.specific.versions.extend(served.versions)
    for label, version in sorted(served.labels.items()):
        model.version_labels[label] = version
    if request_logging.enabled:
        model.logging_config.CopyFrom(_logging(request_logging))
    return config


def base_path_in_container(settings: Settings) -> str:
    """Return the model's base path as the server sees it: below the mounted folder, or the address itself."""
    if "://" in settings.serving_path:
        return settings.serving_path
    return f"{settings.serving.configuration.container.models_folder}/{settings.serving.model_name}"


def _batching(settings: Settings) -> str:
    """Return a BatchingParameters (TF Serving's session_bundle_config.proto) as text."""
    batching = settings.serving.configuration.batching
    names = ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads")
    fields: dict[str, Any] = {name: {"value": getattr(batching, name)} for name in names}
    fields["thread_pool_name"] = {"value": "model_server_batch_threads"}
    return _fields_text({**fields, "allowed_batch_sizes": batching.allowed_batch_sizes})


def _fields_text(fields: Mapping[str, Any], indent: str = "") -> str:
    """Return fields of plain ASCII values as text, for messages that `tensorflow-serving-api` does not bring."""
    text = ""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            text += f"{indent}{name} {{\n{_fields_text(value, f'{indent}  ')}{indent}}}\n"
        else:
            # As `text_format` writes it: what is zero or false is left out.
            items = value if isinstance(value, tuple) else [value] if value else []
            text += "".join(f"{indent}{name}: {json.dumps(item)}\n" for item in items)
    return text


def _logging(logging: RequestLoggingSettings) -> Any:
    from tensorflow_serving.config import logging_config_pb2

    message = logging_config_pb2.LoggingConfig()
    message.log_collector_config.type = logging.collector
    message.log_collector_config.filename_prefix = logging.filename_prefix
    message.sampling_config.sampling_rate = logging.sampling_rate
    return message


def _text(message: Any) -> str:
    from google.protobuf import text_format

    return str(text_format.MessageToString(message))


def arguments(settings: Settings) -> list[str]:
    """Return the command line of `tensorflow_model_server` that reads these files."""
    configuration = settings.serving.configuration
    container = configuration.container
    found = [
        f"--port={container.grpc_port}",
        f"--rest_api_port={container.rest_port}",
        f"--model_config_file={CONFIGURATION_FOLDER}/{MODELS_FILE}",
        f"--model_config_file_poll_wait_seconds={container.poll_seconds}",
        f"--file_system_poll_wait_seconds={container.poll_seconds}",
        f"--monitoring_config_file={CONFIGURATION_FOLDER}/{MONITORING_FILE}",
        "--enable_model_warmup=true",
        "--enable_grpc_healthcheck_service=true",
    ]
    if configuration.batching.enabled:
        found += ["--enable_batching=true", f"--batching_parameters_file={CONFIGURATION_FOLDER}/{BATCHING_FILE}"]
    return found


def health_check(settings: Settings) -> list[str]:
    """Return a command that succeeds if a version of the model is ready; the official image has bash and no curl."""
    request = f"GET /v1/models/{settings.serving.model_name} HTTP/1.0\\r\\n\\r\\n"
    port = settings.serving.configuration.container.rest_port
    return ["bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{port} && printf '{request}' >&3 && grep -q '\"AVAILABLE\"' <&3"]


def _compose(settings: Settings, folder: Path) -> str:
    import yaml

    container = settings.serving.configuration.container
    volumes = [_bind(".", CONFIGURATION_FOLDER)]
    service: dict[str, Any] = {
        "image": container.image,
        "entrypoint": ["tensorflow_model_server"],
        "command": arguments(settings),
        "user": container.user,
        "read_only": True,
        "tmpfs": ["/tmp"],  # noqa: S108 (in the container)
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "ports": [
            {"target": port, "published": str(port), "host_ip": container.host}
            for port in (container.grpc_port, container.rest_port)
        ],
        "volumes": volumes,
        "healthcheck": {
            "test": ["CMD", *health_check(settings)],
            "interval": "5s",
            "timeout": "3s",
            "retries": 3,
            "start_period": "60s",
        },
        "deploy": {"resources": {"limits": {"cpus": f"{container.cpus:g}", "memory": container.memory, "pids": 512}}},
        "stop_grace_period": "30s",
        "restart": "unless-stopped",
    }
    base = os.path.dirname(settings.serving_path)
    if "://" in base:
        # Credentials and region come from whoever starts it; a variable that is not set stays out of the container.
        service["environment"] = ["GOOGLE_APPLICATION_CREDENTIALS", "AWS_REGION", "AWS_ACCESS_KEY_ID"]
        service["environment"] += ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "S3_ENDPOINT"]
    else:
        source = os.path.relpath(base, Path(folder).absolute())
        volumes.append(_bind(f"${{{BASE_VARIABLE}:-{source}}}", container.models_folder))
    content = {"name": "tf-serving", "services": {"tf-serving": service}}
    return str(yaml.safe_dump(content, sort_keys=False, width=120))


def _bind(source: str, target: str) -> dict[str, Any]:
    # A folder that is not there is an error, not one that Docker makes and root owns.
    return {"type": "bind", "source": source, "target": target, "read_only": True, "bind": {"create_host_path": False}}


def differing(content: Mapping[str, str], folder: Path) -> list[str]:
    """Return the names of files in `folder` that are absent or not what is generated, in order."""
    found = {}
    for name in content:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            found[name] = (folder / name).read_text(encoding="utf-8")
    return [name for name, text in content.items() if found.get(name) != text]


def write(content: Mapping[str, str], folder: Path) -> list[Path]:
    """Write the files, each at once, so that a server that polls one never reads half of it.

    Raises:
        StorageError: they cannot be written.
    """
    for name, text in content.items():
        replace_file(folder / name, text.encode())
    return [folder / name for name in content]


def write_or_check(content: Mapping[str, str], folder: Path, command: str, *, check: bool) -> list[Path]:
    """Write the files, or with `check` only compare them, and return them.

    Raises:
        ConfigurationError: with `check`, files are not what `command` writes.
        StorageError: they cannot be written.
    """
    if not check:
        return write(content, folder)
    if wrong := differing(content, folder):
        raise ConfigurationError(
            f"not what the settings give: {', '.join(wrong)}",
            where=str(folder),
            fix=f"write them anew: `bike-pipeline {command} --output {folder}`",
        )
    return [folder / name for name in content]
