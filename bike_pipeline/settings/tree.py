"""The tree of all settings, its small sections, and the places that follow from them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from bike_pipeline.settings.beam import BeamSettings
from bike_pipeline.settings.data import DataSettings, GateSettings
from bike_pipeline.settings.evaluation import EvaluationSettings
from bike_pipeline.settings.exporting import ExportingSettings
from bike_pipeline.settings.kubeflow import KubeflowSettings
from bike_pipeline.settings.metadata import MetadataSettings
from bike_pipeline.settings.section import Positive, Section
from bike_pipeline.settings.serving import ServingSettings
from bike_pipeline.settings.training import TrainingSettings

PACKAGE_ROOT = Path(__file__).resolve().parents[1]
# The folder that holds configs/. In a checkout the package has a link to it; an installed package holds it itself.
PROJECT_ROOT = (PACKAGE_ROOT / "configs").resolve().parent
# Where a person looks for what make fetches and for the notebooks' workspace: the checkout, else the current folder.
FETCHED_ROOT = Path.cwd() if PROJECT_ROOT == PACKAGE_ROOT else PROJECT_ROOT
Version = Annotated[str, Field(pattern=r"^\d+(\.\d+){0,2}$")]
_SCHEMES = ("http", "https", "sqlite", "databricks")


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


class MlflowSettings(Section):
    """Where runs are told to MLflow.

    Credentials never stand here: MLflow reads MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or
    MLFLOW_TRACKING_TOKEN, from the environment.

    Attributes:
        uri: the tracking server, such as https://mlflow.example.org, or a database file, such as
            sqlite:////data/mlflow.db; empty for none.
        experiment: name of the experiment; empty for the pipeline's name.
        registered_model: name in the model registry; empty for the served model's name.
        timeout_seconds: after that long, sending is given up; the run is over by then and stays what it is.
    """

    uri: str = ""
    experiment: str = ""
    registered_model: str = ""
    timeout_seconds: Annotated[float, Field(ge=1, le=600)] = 60

    @field_validator("uri")
    @classmethod
    def _known_address(cls, uri: str) -> str:
        if not uri:
            return uri
        parts = urlsplit(uri)
        if parts.scheme not in _SCHEMES and uri != "databricks":
            raise ValueError(f"an address begins with one of: {', '.join(f'{name}:' for name in _SCHEMES)}")
        if parts.username or parts.password:
            raise ValueError(
                "credentials do not belong here; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
        return uri


class DvcSettings(Section):
    """Where span versions are written for DVC.

    Attributes:
        enabled: write each version as it is ingested; `bike-pipeline data dvc` writes them at any time.
        folder: folder of the `.dvc` files; empty for `<workspace>/dvc`.
        remote: local or mounted folder that DVC pulls from; empty for `remote` in that folder.
    """

    enabled: bool = False
    folder: str = ""
    remote: str = ""


class TrackingSettings(Section):
    """What is kept of runs and data beside the pipeline."""

    mlflow: MlflowSettings = MlflowSettings()
    dvc: DvcSettings = DvcSettings()


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
    evaluation: EvaluationSettings
    exporting: ExportingSettings
    edge: EdgeSettings
    serving: ServingSettings
    signing: SigningSettings
    metadata: MetadataSettings = MetadataSettings()
    beam: BeamSettings
    kubeflow: KubeflowSettings
    tracking: TrackingSettings = TrackingSettings()

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
    def api_key_file(self) -> Path:
        """Hashes of the API keys that the embedded server lets in."""
        return self._place(self.serving.security.authentication.api_key_file, "keys", "api-keys.json")

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
