"""The tree of all settings, its small sections, the places that follow from them, and how it is loaded from files."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from bike_pipeline.errors import ConfigurationError, and_more
from bike_pipeline.settings.beam import BeamSettings
from bike_pipeline.settings.data import DataSettings, GateSettings
from bike_pipeline.settings.evaluation import EvaluationSettings, ModelCardSettings
from bike_pipeline.settings.exporting import ExportingSettings
from bike_pipeline.settings.gateway import GatewaySettings
from bike_pipeline.settings.kubeflow import KubeflowSettings
from bike_pipeline.settings.metadata import MetadataSettings
from bike_pipeline.settings.monitoring import MonitoringSettings
from bike_pipeline.settings.retraining import RetrainingSettings
from bike_pipeline.settings.rollout import RolloutSettings
from bike_pipeline.settings.section import NULLS, Plain, Positive, Section, problem_of, read_yaml, shortened
from bike_pipeline.settings.serving import ServingSettings
from bike_pipeline.settings.tracking import TrackingSettings
from bike_pipeline.settings.training import TrainingSettings
from bike_pipeline.settings.tuning import TuningSettings

PACKAGE_ROOT = Path(__file__).resolve().parents[1]
# The folder that holds configs/. In a checkout the package has a link to it; an installed package holds it itself.
PROJECT_ROOT = (PACKAGE_ROOT / "configs").resolve().parent
BASE_FILE = PROJECT_ROOT / "configs" / "base.yaml"
# Where a person looks for what make fetches and for the notebooks' workspace: the checkout, else the current folder.
FETCHED_ROOT = Path.cwd() if PROJECT_ROOT == PACKAGE_ROOT else PROJECT_ROOT
Version = Annotated[str, Field(pattern=r"^\d+(\.\d+){0,2}$")]


class MinimumVersions(Section):
    """Versions that a device must have at least; it refuses an update if it has less."""

    python: Version
    ai_edge_litert: Version
    numpy: Version


class EdgeSettings(Section):
    """What goes to devices, and from where they fetch it.

    Attributes:
        base_path: folder of the channels, which a web server serves as static files; empty for `<workspace>/edge`.
        author: who stands as the author in the models' metadata.
        license: what stands as their licence.
        golden_tolerance: of a float32 model, largest |difference| / max(rentals, 1) between a device and this machine
            on a golden row. Above `exporting.max_relative_difference`, since other processors round otherwise.
        reduced_golden_tolerance: the same of all other models, whose kernels differ between processors.
    """

    base_path: str = ""
    valid_days: Positive
    author: Annotated[str, Field(min_length=1)]
    license: str
    golden_tolerance: Positive
    reduced_golden_tolerance: Positive
    minimum: MinimumVersions

    @model_validator(mode="after")
    def _local(self) -> Self:
        if "://" in self.base_path:
            raise ValueError("base_path must be a local or mounted folder; copy it to where devices fetch it from")
        return self


class SigningSettings(Section):
    """Which key signs a pushed model, which public keys are trusted, and whether a signature is required.

    The private key itself never stands in the settings. The variable BIKE_PIPELINE_SIGNING_KEY (the key as PEM text) or
    BIKE_PIPELINE_SIGNING_KEY_FILE (a file) goes before `key_file`.

    Attributes:
        key_file: private key as PEM: ed25519, or on P-256, P-384 or P-521, which signs models and nothing for devices.
            Empty for `<workspace>/keys/signing.pem`, which is made at the first push.
        trusted_keys: files with public keys (PEM) that are trusted, besides those that belong to the key.
        require_signature: whether `serve`, `predict`, `promote`, `rollback`, `verify` and `push edge` refuse a version
            without the signature of a trusted key, or whose signed manifest does not name its version. Without it they
            only say so; what speaks against a version is refused either way.
    """

    key_file: str = ""
    trusted_keys: tuple[str, ...] = ()
    require_signature: bool = False


class Settings(Section):
    """All settings.

    Attributes:
        pipeline_name: name of the pipeline in ML Metadata and on every runner.
        workspace: folder for everything the product writes; relative to the folder it is called in.
        schema_file: the curated schema; relative to the folder that holds configs/ (see `PROJECT_ROOT`).
        seed: seeds every random number generator of a run.
    """

    pipeline_name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    workspace: Path
    schema_file: Path
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    data: DataSettings
    gate: GateSettings
    training: TrainingSettings
    tuning: TuningSettings
    evaluation: EvaluationSettings
    model_card: ModelCardSettings
    exporting: ExportingSettings
    edge: EdgeSettings
    serving: ServingSettings
    rollout: RolloutSettings = RolloutSettings()
    gateway: GatewaySettings = GatewaySettings()
    signing: SigningSettings
    monitoring: MonitoringSettings = MonitoringSettings()
    retraining: RetrainingSettings = RetrainingSettings()
    metadata: MetadataSettings = MetadataSettings()
    beam: BeamSettings
    kubeflow: KubeflowSettings
    tracking: TrackingSettings = TrackingSettings()

    @model_validator(mode="after")
    def _tunable(self) -> Self:
        self.tuning.check(self.training)
        if self.training.target != "rentals" and self.exporting.compression.methods:
            raise ValueError(f"exporting.compression: its methods know rentals alone, not {self.training.target}")
        return self

    @property
    def workspace_path(self) -> Path:
        return self.workspace.expanduser().absolute()

    def _place(self, named: str, *usual: str) -> Path:
        """Return the absolute path that a setting names, or the usual one in the workspace."""
        return Path(named).expanduser().absolute() if named else self.workspace_path.joinpath(*usual)

    @property
    def store_uri(self) -> str:
        return self.data.store or str(self.workspace_path / "spans")

    @property
    def pipeline_root(self) -> str:
        return str(self.workspace_path / "artifacts")

    @property
    def metadata_file(self) -> Path:
        """SQLite file of ML Metadata, if `metadata` names no server."""
        return self._place(self.metadata.sqlite_file, "metadata.sqlite")

    @property
    def metadata_address(self) -> str:
        """The place of ML Metadata as one address without user and password (see `lineage.store.connection`)."""
        return self.metadata.server_address or self.metadata_file.as_uri().replace("file:", "sqlite:", 1)

    @property
    def logs_path(self) -> Path:
        return self.workspace_path / "logs"

    @property
    def serving_path(self) -> str:
        """Base path of the served model: one numeric folder a version, as TF Serving expects."""
        base = self.serving.base_path or str(self.workspace_path / "serving")
        return f"{base.rstrip('/')}/{self.serving.model_name}"

    @property
    def edge_path(self) -> Path:
        return self._place(self.edge.base_path, "edge")

    @property
    def signing_key_file(self) -> Path:
        """The private key that signs pushed models, if no environment variable names another."""
        return self._place(self.signing.key_file, "keys", "signing.pem")

    @property
    def gateway_key_file(self) -> Path:
        """Public halves of the API keys that the gateway lets in."""
        return self._place(self.gateway.authentication.api_key_file, "keys", "gateway-keys.json")

    @property
    def gateway_log_file(self) -> Path:
        """The gateway's access log."""
        return self._place(self.gateway.access_log, "logs", "gateway.jsonl")

    @property
    def monitoring_path(self) -> Path:
        """What the monitor keeps: observations, verdicts, explanations."""
        return self._place(self.monitoring.path, "monitoring")

    @property
    def request_log_path(self) -> Path:
        return self._place(self.monitoring.request_log.path or str(self.monitoring_path / "requests"))

    @property
    def retraining_path(self) -> Path:
        """What continuous training keeps: the ledger, and uploads that wait for their run."""
        return self._place(self.retraining.path, "retraining")

    @property
    def incoming_path(self) -> Path:
        """The project's folder for rows that ask for a run; an absolute path stays what it is."""
        return FETCHED_ROOT / Path(self.retraining.incoming).expanduser()

    @property
    def dvc_path(self) -> Path:
        return self._place(self.tracking.dvc.folder, "dvc")

    @property
    def dvc_remote(self) -> Path:
        return self._place(self.tracking.dvc.remote or str(self.dvc_path / "remote"))

    @property
    def schema_path(self) -> Path:
        # An absolute path stays what it is.
        return PROJECT_ROOT / self.schema_file


# By its text: programs load settings again and again, and nobody changes what is read.
_parsed = functools.lru_cache(maxsize=4)(read_yaml)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = _parsed(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError("no such configuration file", where=str(path), fix="check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"cannot read it ({error})", where=str(path), fix="check that it is a readable text file"
        ) from None
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), problem_of(error)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigurationError(f"not valid YAML ({problem})", where=where, fix="correct that line") from None
    if content is None or (isinstance(content, Plain) and content in NULLS):
        return {}
    if not isinstance(content, dict):
        raise ConfigurationError(
            "a configuration file holds a mapping of settings", where=str(path), fix="see configs/base.yaml"
        )
    return content


# A mapping whose names are the user's own. Two levels or more are all that there are; one changes that of its name.
_NAMED_AT_WILL = "quantiles"


def _merge(base: dict[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in overlay.items():
        below = merged.get(key)
        if not (isinstance(below, dict) and isinstance(value, dict)) or (key == _NAMED_AT_WILL and len(value) > 1):
            merged[key] = value
        else:
            merged[key] = _merge(below, value)
    return merged


def assignment(text: str, example: str, read: Callable[[str], Any]) -> tuple[str, Any]:
    """Return the key and the value of "key=value", or a ConfigurationError; `example` begins with the option."""
    option = example.partition(" ")[0]
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigurationError(f"'{text}' is not key=value", where=option, fix=f"write {example}")
    try:
        return key.strip(), read(value)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigurationError(
            f"the value of {key} is not valid YAML ({problem_of(error)})", where=option, fix="quote it"
        ) from None


def _explain(error: ValidationError, where: str) -> ConfigurationError:
    first = error.errors()[0]
    path = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        what = f"unknown setting '{path}'"
    elif first["type"] == "missing":
        what = f"the setting '{path}' is missing"
    else:
        message = first["msg"].removeprefix("Value error, ")
        got = first.get("input")
        got_text = f" (got {shortened(repr(got))})" if isinstance(got, str | int | float | bool) else ""
        what = f"{path}: {message}{got_text}" if path else message
    fix = "`bike-pipeline config schema` lists every setting, its type and its range"
    return ConfigurationError(what + and_more(error.errors()), where=where, fix=fix)


def load_settings(config: Path | str | None = None, assignments: tuple[str, ...] = ()) -> Settings:
    """Return the settings of `configs/base.yaml`, an overlay file and single `key.path=value` texts (values are YAML).

    Each is merged over the one before; a ConfigurationError names what is missing, unknown or wrong.
    """
    values = _read_yaml(BASE_FILE)
    where = str(BASE_FILE)
    if config is not None:
        values = _merge(values, _read_yaml(Path(config)))
        where = os.fspath(config)
    for text in assignments:
        # Nothing behind the sign is an empty text: a shell takes the quotes of key="" away.
        key, value = assignment(
            text, "--set training.epochs=10", lambda value: read_yaml(value) if value.strip() else ""
        )
        overlay = functools.reduce(lambda inner, part: {part: inner}, reversed(key.split(".")), value)
        values = _merge(values, overlay)
        where = f"{where} with --set" if "--set" not in where else where
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise _explain(error, where) from None
