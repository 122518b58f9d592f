"""Smaller models of a model, measured side by side, and the one that the rule of the settings chooses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bike_pipeline.errors import ConfigurationError, ModelError
from bike_pipeline.use_cases.export import changed, payload_of
from bike_pipeline.use_cases.lineage import lineage_of

if TYPE_CHECKING:
    from bike_pipeline.exporting.compression.candidates import Material
    from bike_pipeline.exporting.compression.rule import Choice
    from bike_pipeline.lineage.queries.model_lookup import FoundModel
    from bike_pipeline.lineage.store.metadata_store import Lineage
    from bike_pipeline.settings import Settings
    from bike_pipeline.settings.exporting import Method

# Those of `settings.exporting.Method`, whose module is too heavy to import for help.
METHODS: tuple[Method, ...] = ("plain", "pruning", "distillation", "quantization_aware")


@dataclass(frozen=True)
class Compression:
    """The candidates of a model in their folder, and what the rule chose; `table` has the same as plain values."""

    model_id: int
    folder: str
    eval_rows: int
    choice: Choice
    table: dict[str, Any]

    def require(self) -> None:
        """Raise ExportError if no candidate is within the limits."""
        self.choice.required()


def compress(
    settings: Settings, model: str | None = None, *, methods: Sequence[Method] = (), formats: Sequence[str] = ()
) -> Compression:
    """Make smaller models of a model, measure them on the eval split, and choose one. Nothing that serves is changed.

    All of `METHODS` are tried if none is named, in the formats, by the limits and the rule of `exporting.compression`.
    """
    from bike_pipeline.lean_imports import lean_imports
    from bike_pipeline.lineage.queries.model_lookup import find_model
    from bike_pipeline.storage.atomic_files import workspace_lock

    own = settings.exporting.compression
    own = own.model_copy(update={"formats": tuple(formats)}) if formats else own
    lineage = lineage_of(settings)
    chosen = find_model(lineage, settings.serving_path, model)
    base = settings.workspace_path / "compression"
    with workspace_lock(base, wait=False), lean_imports(google_cloud=True):
        from bike_pipeline.exporting.compression.candidates import TABLE_FILE, Trying, choose, new_result
        from bike_pipeline.exporting.formats import registry
        from bike_pipeline.modeling.saved_model import target_of
        from bike_pipeline.modeling.targets import RENTALS

        registry.formats_of(own.formats)
        material = _material(lineage, chosen)
        if (target := target_of(str(material.saved_model))).name != RENTALS.name:
            raise ConfigurationError(
                f"the methods of compression know rentals alone, and this model answers {target.meaning}",
                where=f"model {chosen.model_id}",
                fix="name a model of rentals with --model",
            )
        exporting = settings.exporting.model_copy(update={"compression": own})
        trying = Trying(material, methods or METHODS, exporting, settings.training, settings.evaluation, settings.seed)
        with new_result(base / str(chosen.model_id)) as (aside, folder):
            choice = choose(trying, _calibration(material, settings), aside)
    table = json.loads((folder / TABLE_FILE).read_text(encoding="utf-8"))
    return Compression(chosen.model_id, str(folder), len(material.evaluated["cnt"]), choice, table)


def _material(lineage: Lineage, chosen: FoundModel) -> Material:
    """Return what candidates of a model are made of: its files, its transform graph, its rows."""
    from bike_pipeline.exporting.compression.candidates import Material
    from bike_pipeline.modeling.rows import read
    from bike_pipeline.stages import EVAL, HISTORY, TRAIN

    producer = lineage.producer(chosen.model_id)
    inputs = lineage.inputs(producer.id) if producer is not None else {}
    found = {}
    for key in ("transform_graph", "examples", "schema"):
        artifact = next(iter(inputs.get(key, ())), None)
        what = f"the {key.replace('_', ' ')} that model {chosen.model_id} was trained with"
        if artifact is None or not Path(artifact.uri).is_dir():
            raise ModelError(
                f"{what} is not there any more",
                where=artifact.uri if artifact is not None else "",
                fix="run the pipeline again, or name a newer model; `bike-pipeline gc` frees the files of old ones",
            )
        if difference := changed(artifact):
            raise ModelError(
                f"{what} cannot be trusted: {difference}",
                fix="find out what changed it; `bike-pipeline run --no-cache` makes a model anew",
            )
        found[key] = Path(artifact.uri)
    folder = payload_of(lineage, chosen)
    if folder is None:
        raise ModelError(f"the files of model {chosen.model_id} are gone or changed", fix="name another model")

    def rows(*splits: str) -> Any:
        patterns = [str(found["examples"] / f"Split-{split}" / "*") for split in splits]
        return read(patterns, str(found["schema"] / "schema.pbtxt"))

    return Material(folder, found["transform_graph"], rows(HISTORY, TRAIN), rows(EVAL))


def _calibration(material: Material, settings: Settings) -> Any:
    """Return rows spread evenly over the training span."""
    import numpy as np

    from bike_pipeline import features

    total = len(next(iter(material.train.values())))
    places = np.unique(np.linspace(0, total - 1, min(settings.exporting.calibration_rows, total)).astype(np.int64))
    return {f.name: material.train[f.name][places] for f in features.MODEL_INPUTS}
