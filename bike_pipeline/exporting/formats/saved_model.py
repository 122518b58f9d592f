"""SavedModel: the served model itself, with all its signatures. What every other format is held against."""

from __future__ import annotations

import shutil
from pathlib import Path

from bike_pipeline.exporting.formats.base import Format, Source
from bike_pipeline.model_registry.layout import EXPORTS_FOLDER
from bike_pipeline.modeling.loaded_model import LoadedModel


class SavedModel(Format):
    """A copy of the trained SavedModel, byte for byte."""

    name = "saved_model"
    title = "SavedModel"
    file = "saved_model.pb"
    in_process = True

    def export(self, source: Source, folder: Path) -> None:
        """Copy the SavedModel with its signatures and extra files, without what was exported of it before."""
        exports = (source.saved_model / EXPORTS_FOLDER).parent
        shutil.copytree(
            source.saved_model,
            folder,
            dirs_exist_ok=True,
            ignore=lambda path, _: [EXPORTS_FOLDER.name] if Path(path) == exports else [],
        )

    def load(self, folder: Path) -> LoadedModel:
        """Load it with TensorFlow."""
        return LoadedModel(folder)
