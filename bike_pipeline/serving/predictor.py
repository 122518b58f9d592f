"""The served model in this process: the promoted version under the serving base path, through its served signature."""

from __future__ import annotations

from bike_pipeline import features
from bike_pipeline.errors import ModelError
from bike_pipeline.model_registry import ModelRegistry
from bike_pipeline.modeling.loaded_model import LoadedModel
from bike_pipeline.settings.training import TargetName


class Predictor(LoadedModel):
    """Answers from one version of the served model."""

    def __init__(self, serving_path: str, version: int | None = None, target: TargetName = "rentals") -> None:
        """Load a version, the promoted one if none is named, whose files must be those that were pushed.

        A ModelError says that there is none, or that it was trained for another target.
        """
        registry = ModelRegistry(serving_path)
        promoted = registry.serving() if version is None else version
        if promoted is None or not registry.versions():
            raise ModelError(
                "no model is served", where=serving_path, fix="run the pipeline first: `bike-pipeline run`"
            )
        self.version = promoted
        registry.require_sound(promoted)
        super().__init__(registry.folder(promoted))
        if self.answer != features.ANSWERS[target].output:
            raise ModelError(
                f"version {promoted} answers {self.answer}, and {features.ANSWERS[target].output} is asked for",
                where=serving_path,
                fix="ask with the settings that the model was trained with, such as --config configs/busy.yaml",
            )
