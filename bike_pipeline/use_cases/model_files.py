"""A model that somebody named, with its files and the rows it was trained and evaluated on: what an export needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bike_pipeline.errors import ExportError

if TYPE_CHECKING:
    from bike_pipeline.lineage.queries.model_lookup import FoundModel
    from bike_pipeline.lineage.store.metadata_store import Artifact, Lineage
    from bike_pipeline.settings import Settings

# TFX's name for the SavedModel in a Model artifact.
SAVED_MODEL_FOLDER = "Format-Serving"


@dataclass(frozen=True)
class ModelToExport:
    """A trained model, with rows of its training span (the model's inputs) and of its eval split, of shape (rows,)."""

    model_id: int
    saved_model: Path
    blessed: bool
    calibration: dict[str, Any]
    evaluated: dict[str, Any]


def model_to_export(settings: Settings, name: str | None) -> ModelToExport:
    """Return the model that is meant (see `use_cases`).

    Raises:
        DataError: the span that it was trained on is not in the store any more.
        ExportError: its files or the record of its data are gone.
    """
    from bike_pipeline.lineage.queries.model_lookup import find_model
    from bike_pipeline.use_cases.metadata import lineage_of

    lineage = lineage_of(settings)
    chosen = find_model(lineage, settings.serving_path, name)
    saved_model = payload_of(lineage, chosen)
    if saved_model is None:
        raise ExportError(
            f"the files of model {chosen.model_id} are gone or changed",
            fix="`bike-pipeline reproduce` makes it again from what is on record",
        )
    blessed = any(m.model_id == chosen.model_id and m.blessed is True for m in lineage.models())
    train, evaluated = _rows(settings, lineage, chosen.model_id)
    every = max(1, len(next(iter(train.values()))) // settings.exporting.calibration_rows)
    calibration = {column: values[::every] for column, values in train.items()}
    return ModelToExport(chosen.model_id, saved_model, blessed, calibration, evaluated)


def changed(artifact: Artifact) -> str:
    """Return in words how an artifact differs from what its stage wrote; "" if an older release sealed nothing."""
    from bike_pipeline.lineage.records import sealing
    from bike_pipeline.lineage.store.metadata_store import prop

    seal = prop(artifact, sealing.SEAL_PROPERTY)
    return sealing.difference(artifact.uri, seal) if seal is not None else ""


def payload_of(lineage: Lineage, chosen: FoundModel) -> Path | None:
    """Return a folder that holds the model's very files: the trained one, else the pushed one; None if none does."""
    from bike_pipeline.model_registry import is_intact, local_copy

    artifact = lineage.artifact(chosen.model_id)
    trained = Path(artifact.uri) / SAVED_MODEL_FOLDER
    if chosen.push is None:
        return trained if trained.is_dir() and not changed(artifact) else None
    for folder in (str(trained), chosen.push.destination):
        if is_intact(folder, chosen.push.fingerprint):
            return local_copy(folder)
    return None


def _rows(settings: Settings, lineage: Lineage, model_id: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the rows that a model was trained on, of its newest span, and those that it was evaluated on."""
    import numpy as np

    from bike_pipeline import features
    from bike_pipeline.data.spans import SpanStore
    from bike_pipeline.exporting.export_run import EVALUATED_COLUMNS
    from bike_pipeline.lineage.queries.evidence import window_of

    trained = lineage.producer(model_id)
    examples = lineage.inputs(trained.id).get("examples", []) if trained else []
    window = window_of(examples[0]) if examples else []
    if not window:
        raise ExportError(f"there is no record of the data of model {model_id}", fix="train again, then export")
    store = SpanStore(settings.store_uri)
    kinds = {"int": np.int64, "float": np.float32}

    def columns(split: Any, names: Any) -> dict[str, Any]:
        table = store.read(window[-1]["span"], window[-1]["version"], (split,))
        return {name: table.column(name).to_numpy().astype(kinds[features.BY_NAME[name].kind]) for name in names}

    return columns("train", [f.name for f in features.MODEL_INPUTS]), columns("eval", EVALUATED_COLUMNS)
