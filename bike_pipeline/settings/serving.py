"""Where a pushed model goes."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from bike_pipeline.settings.section import Section
from bike_pipeline.settings.serving import ServingClientSettings
from bike_pipeline.settings.serving_configuration import ServingConfigurationSettings
from bike_pipeline.settings.serving import PromotionSettings
from bike_pipeline.settings.serving_security import ServingSecuritySettings
from bike_pipeline.settings.serving import ServerSettings


class ServingSettings(Section):
    """Where a pushed model goes.

    Attributes:
        model_name: the name that TF Serving serves the model under.
        base_path: local or mounted folder, or s3:// or gs:// address, that holds one folder a model name; empty for
            `<workspace>/serving`.
        configuration: what TF Serving is told.
        server: the embedded model server.
        client: how this machine asks a model server.
        security: who may ask the embedded server, over what connection, and how much.
        promotion: how a pushed version comes to serve.
    """

    model_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    base_path: str = ""
    configuration: ServingConfigurationSettings = ServingConfigurationSettings()
    server: ServerSettings = ServerSettings()
    client: ServingClientSettings = ServingClientSettings()
    security: ServingSecuritySettings = ServingSecuritySettings()
    promotion: PromotionSettings = PromotionSettings()

    @model_validator(mode="after")
    def _local(self) -> Self:
        if "://" in self.base_path and not self.base_path.startswith(("s3://", "gs://")):
            raise ValueError("base_path must be a local or mounted folder, or an address with s3:// or gs://")
        return self
