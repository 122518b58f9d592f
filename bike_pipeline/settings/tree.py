"""The tree of all settings, and the places that follow from them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from bike_pipeline.settings.beam import BeamSettings
from bike_pipeline.settings.data import DataSettings, GateSettings
from bike_pipeline.settings.tree import EdgeSettings
from bike_pipeline.settings.evaluation import EvaluationSettings
from bike_pipeline.settings.exporting import ExportingSettings
from bike_pipeline.settings.kubeflow import KubeflowSettings
from bike_pipeline.settings.metadata import MetadataSettings
from bike_pipeline.settings.section import Section
from bike_pipeline.settings.serving import ServingSettings
from bike_pipeline.settings.tree import SigningSettings
from bike_pipeline.settings.tree import TrackingSettings
from bike_pipeline.settings.training import TrainingSettings

PACKAGE_ROOT = Path(__file__).resolve().parents[1]
# The folder that holds configs/. In a checkout the package has a link to it; an installed package holds it itself.
PROJECT_ROOT = (PACKAGE_ROOT / "configs").resolve().parent
# Where a person looks for what make fetches and for the notebooks' workspace: the checkout, else the current folder.
FETCHED_ROOT = Path.cwd() if PROJECT_ROOT == PACKAGE_ROOT else PROJECT_ROOT


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
        """The workspace as an absolute path."""
        return self.workspace.expanduser().absolute()

    def _place(self, named: str, *usual: str) -> Path:
        """Return the absolute path that a setting names, or the usual one in the workspace."""
        return Path(named).expanduser().absolute() if named else self.workspace_path.joinpath(*usual)

    @property
    def store_uri(self) -> str:
        """Folder or URL of the span store."""
        return self.data.store or str(self.workspace_path / "spans")

    @property
    def pipeline_root(self) -> str:
        """Folder of the pipeline's artifacts."""
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
        """Folder of the runs' log files."""
        return self.workspace_path / "logs"

    @property
    def serving_path(self) -> str:
        """Base path of the served model: one numeric folder a version, as TF Serving expects."""
        base = self.serving.base_path or str(self.workspace_path / "serving")
        return f"{base.rstrip('/')}/{self.serving.model_name}"

    @property
    def edge_path(self) -> Path:
        """Folder of the channels that devices fetch from."""
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
        """Folder of the span versions' `.dvc` files."""
        return self._place(self.tracking.dvc.folder, "dvc")

    @property
    def dvc_remote(self) -> Path:
        """Folder that DVC pulls span versions from."""
        return self._place(self.tracking.dvc.remote or str(self.dvc_path / "remote"))

    @property
    def schema_path(self) -> Path:
        """The curated schema as an absolute path."""
        # An absolute path stays what it is.
        return PROJECT_ROOT / self.schema_file
