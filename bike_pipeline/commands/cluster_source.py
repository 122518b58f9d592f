"""The cluster client behind `submit` and `schedule`, found by its entry point, and the compiled spec that it gets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bike_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings

CLIENTS_GROUP = "bike_pipeline.cluster_clients"


def client_module() -> Any:
    """Return the module that the entry point `kubeflow` names.

    Raises:
        ConfigurationError: this installation has no such entry point.
    """
    from importlib.metadata import entry_points

    found = {point.name: point for point in entry_points(group=CLIENTS_GROUP)}
    if "kubeflow" not in found:
        raise ConfigurationError(
            "this installation has no client for Kubeflow Pipelines", fix="install it again: make setup"
        )
    return found["kubeflow"].load()


def compiled(settings: Settings, spec: Path | None) -> str:
    """Return a compiled spec: the file's content, or the pipeline compiled now.

    Raises:
        ConfigurationError: the file cannot be read, or the settings do not compile.
    """
    if spec is None:
        spec = _compile(settings)
    try:
        return spec.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read it ({error})", where=str(spec), fix="check the path") from None


def _compile(settings: Settings) -> Path:
    """Compile the pipeline now; what the libraries have to say goes to a log."""
    from datetime import UTC, datetime

    from bike_pipeline.log_capture import captured
    from bike_pipeline.runners.kubeflow_runner import KubeflowRunner

    with captured(settings.logs_path / f"compile-{datetime.now(UTC):%Y%m%dT%H%M%S}.log"):
        path = KubeflowRunner.compile(settings, "kubeflow", None)
        assert isinstance(path, Path)
        return path
