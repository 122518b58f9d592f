"""The served model in this process: the promoted version under the serving base path, through its served signature."""

from __future__ import annotations

from bike_pipeline.errors import ModelError
from bike_pipeline.model_registry import promotion_log, version_folders
from bike_pipeline.modeling.loaded_model import LoadedModel


class Predictor(LoadedModel):
    """Answers from one version of the served model.

    Attributes:
        version: the version that answers.
    """

    def __init__(self, serving_path: str, version: int | None = None) -> None:
        """Load a version, the promoted one where none is named.

        Raises:
            ModelError: there is no such version, its files are not those that were pushed, or it lacks a signature that
                is required.
            StorageError: what is promoted cannot be read.
        """
        present = version_folders.versions(serving_path)
        promoted = promotion_log.promoted_version(serving_path) if version is None else version
        if not present or promoted is None:
            raise ModelError(
                "no model is served", where=serving_path, fix="run the pipeline first: `bike-pipeline run`"
            )
        if version is not None and version not in present:
            raise ModelError(
                f"version {version} is not there",
                where=serving_path,
                fix=f"choose one of {', '.join(map(str, present))}",
            )
        self.version = promoted
        promotion_log.check_sound(serving_path, self.version)
        super().__init__(version_folders.local_folder(serving_path, self.version))
