"""A model in other formats, each held against the SavedModel and measured in a process of its own."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bike_pipeline.errors import ExportError, StorageError, and_more
from bike_pipeline.use_cases.lineage import lineage_of

if TYPE_CHECKING:
    from bike_pipeline.exporting.formats.base import Format
    from bike_pipeline.lineage.queries.model_lookup import FoundModel
    from bike_pipeline.lineage.store.metadata_store import Artifact, Lineage
    from bike_pipeline.settings import Settings

ALL = "all"
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


@dataclass(frozen=True)
class ParityMatrix:
    """What came of each format of a model; `report` is the content of `parity.json`."""

    model_id: int
    report: dict[str, Any]


@dataclass(frozen=True)
class Export(ParityMatrix):
    """A folder that holds a folder a format, `parity.json` and `golden.json`."""

    folder: str
    tolerant: bool

    def require(self) -> None:
        """Raise ExportError if a format failed; of "all" formats, one whose extra is not installed does not count."""
        formats = self.report["formats"].values()
        failed = [e for e in formats if not e["passed"] and not (self.tolerant and e["not_here"])]
        if failed:
            raise ExportError(
                f"{failed[0]['title']} is not exported: {failed[0]['reason'].rstrip('.')}{and_more(failed)}",
                fix="the formats that passed are in the folder",
            )


def export(
    settings: Settings,
    model: str | None = None,
    *,
    formats: Sequence[str] | None = None,
    output: Path | None = None,
    force: bool = False,
) -> Export:
    """Export a model to formats, "all" or those of the settings if none is named; tell `bike_pipeline.progress` of it.

    The folder, <workspace>/exports/<model> if none is named, appears whole or not at all, and replaces exports that are
    there. With `force`, a model that was not blessed is exported as well, marked as such.

    Raises:
        ExportError: the model was not blessed, its files are gone, or the SavedModel itself cannot be exported.
        StorageError: the folder holds something else, or cannot be written.
    """
    from bike_pipeline.model_registry.layout import PARITY_FILE

    chosen = formats_of(settings, formats)
    found = model_to_export(settings, model)
    if not found.blessed and not force:
        raise ExportError(
            f"model {found.model_id} was not blessed", fix="export another one, or this one marked as such with --force"
        )
    target = (output or settings.workspace_path / "exports" / str(found.model_id)).absolute()
    _recover(target)
    if target.exists() and not (target / PARITY_FILE).is_file() and not (target.is_dir() and not any(target.iterdir())):
        fix = "name another folder with --output"
        raise StorageError("there is something that is no export", where=str(target), fix=fix)
    aside = target.with_name(f".{target.name}.writing-{os.getpid()}")
    try:
        aside.mkdir(parents=True)
        report = measured(settings, chosen, found, aside)
        _put(aside, target)
    except OSError as error:
        raise StorageError(
            f"cannot write the exports ({error.strerror or error})",
            where=str(target),
            fix="free space or grant write permission there; what was there before is untouched",
        ) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Export(found.model_id, report, str(target), tolerant=list(formats or ()) == [ALL])


def parity(settings: Settings, model: str | None = None, formats: Sequence[str] | None = None) -> ParityMatrix:
    """Measure each format of a model against the SavedModel and keep nothing; arguments and errors as of `export`."""
    chosen = formats_of(settings, formats)
    found = model_to_export(settings, model)
    with tempfile.TemporaryDirectory(prefix="bike-parity-") as folder:
        return ParityMatrix(found.model_id, measured(settings, chosen, found, Path(folder)))


def formats_of(settings: Settings, formats: Sequence[str] | None) -> list[Format]:
    """Return formats, the SavedModel first: the others are held against it."""
    from bike_pipeline.exporting.acceptance.report import SAVED_MODEL
    from bike_pipeline.exporting.formats import registry

    names = settings.exporting.formats if formats is None else formats
    if list(names) == [ALL]:
        # The compressed model comes of a run only: it is trained.
        names = [*settings.exporting.formats, *(name for name in registry.names() if name != "compressed")]
    return registry.formats_of(list(dict.fromkeys((SAVED_MODEL, *names))))


def measured(
    settings: Settings, formats: list[Format], model: ModelToExport, folder: Path, *, saved_model_here: bool = False
) -> dict[str, Any]:
    """Export, check and measure formats into a folder that exists; write `parity.json` there and return it.

    The SavedModel is among the formats; it is measured in this process where TensorFlow is loaded already.
    """
    from bike_pipeline.lean_imports import lean_imports

    with lean_imports(google_cloud=True):
        from bike_pipeline.exporting import export_run
        from bike_pipeline.exporting.formats.base import Source

        report = export_run.run(
            formats,
            Source(model.saved_model, model.calibration),
            model.evaluated,
            settings.exporting,
            settings.evaluation,
            folder,
            model_id=model.model_id,
            blessed=model.blessed,
            saved_model_here=saved_model_here,
        )
    return report.as_json()


def _before(target: Path) -> Path:
    """Return the place of the exports that are being replaced, for a moment."""
    return target.with_name(f".{target.name}.before")


def _recover(target: Path) -> None:
    """Finish or take back a replacement that was killed half-way."""
    before = _before(target)
    if before.is_dir() and not target.exists():
        before.rename(target)
    shutil.rmtree(before, ignore_errors=True)


def _put(aside: Path, target: Path) -> None:
    """Let a folder take the place of another one; what a killed process left is put right by `_recover`."""
    if target.exists():
        target.rename(_before(target))
    try:
        aside.rename(target)
    finally:
        _recover(target)


def model_to_export(settings: Settings, name: str | None) -> ModelToExport:
    """Return the model that is meant (see `use_cases`).

    Raises:
        DataError: the span that it was trained on is not in the store any more.
        ExportError: its files or the record of its data are gone.
    """
    from bike_pipeline.lineage.queries.model_lookup import find_model

    lineage = lineage_of(settings)
    chosen = find_model(lineage, settings.serving_path, name)
    saved_model = payload_of(lineage, chosen)
    if saved_model is None:
        raise ExportError(
            f"the files of model {chosen.model_id} are gone or changed",
            fix="`bike-pipeline reproduce` makes it again from what is on record",
        )
    blessed = any(m.model_id == chosen.model_id and m.blessed is True for m in lineage.models())
    return with_rows(settings, lineage, chosen.model_id, saved_model, blessed=blessed)


def with_rows(
    settings: Settings, lineage: Lineage, model_id: int, saved_model: Path, *, blessed: bool
) -> ModelToExport:
    """Return a model in a folder with the rows that it is exported by; errors as of `model_to_export`."""
    train, evaluated = _rows(settings, lineage, model_id)
    every = max(1, len(next(iter(train.values()))) // settings.exporting.calibration_rows)
    calibration = {column: values[::every] for column, values in train.items()}
    return ModelToExport(model_id, saved_model, blessed, calibration, evaluated)


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
    from bike_pipeline.data.past_weather import with_optional_inputs
    from bike_pipeline.data.spans import SpanStore
    from bike_pipeline.data.window import rows_of
    from bike_pipeline.exporting.export_run import EVALUATED_COLUMNS
    from bike_pipeline.lineage.queries.evidence import window_of

    trained = lineage.producer(model_id)
    examples = lineage.inputs(trained.id).get("examples", []) if trained else []
    window = window_of(examples[0]) if examples else []
    if not window:
        raise ExportError(f"there is no record of the data of model {model_id}", fix="train again, then export")
    store = SpanStore(settings.store_uri)
    kinds = {"int": np.int64, "float": np.float32}
    known = [store.read(entry["span"], entry["version"]) for entry in reversed(window)]

    def columns(split: Any, names: Any) -> dict[str, Any]:
        table = with_optional_inputs(rows_of(store, window[-1], (split,)), *known)
        return {name: table.column(name).to_numpy().astype(kinds[features.BY_NAME[name].kind]) for name in names}

    return columns("train", [f.name for f in features.MODEL_INPUTS]), columns("eval", EVALUATED_COLUMNS)
