"""What is kept of runs and data beside the pipeline: MLflow, DVC."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from bike_pipeline.settings.section import Section

_SCHEMES = ("http", "https", "sqlite", "databricks")


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
