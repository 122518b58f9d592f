"""Which model a person means: a served version, the number of a trained model, a folder, or the one that serves."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from bike_pipeline.errors import ModelError
from bike_pipeline.lineage.store.entities import PushedModel
from bike_pipeline.lineage.store.metadata_store import Lineage
from bike_pipeline.model_registry import ModelRegistry


@dataclass(frozen=True)
class FoundModel:
    """A model that somebody asked for, by its MLMD id, and its newest push, if there was one."""

    model_id: int
    push: PushedModel | None


def pushed_folder(serving_path: str, name: str | None) -> Path | None:
    """Return the local folder of a version, of a folder's name, or (None) of the version that serves, as it is now.

    None if only ML Metadata can tell. That nothing serves is a ModelError, that it cannot be read a StorageError.
    """
    registry = ModelRegistry(serving_path)
    if name is None:
        promoted = registry.serving()
        if promoted is None:
            raise ModelError("no model is served", where=serving_path, fix="run the pipeline: `bike-pipeline run`")
        return registry.folder(promoted, fresh=True)
    if name.isdigit():
        return registry.folder(int(name), fresh=True) if int(name) in registry.versions() else None
    return Path(name) if Path(name).is_dir() else None


def find_model(lineage: Lineage, serving_path: str, name: str | None) -> FoundModel:
    """Return the model that is meant; a ModelError where there is none.

    `name` is a served version, a model's number as `bike-pipeline models` lists it, a pushed folder, or None for the
    model that serves now; of the base path, since workspaces may share one store ("" for any).
    """
    if name is None:
        serving = lineage.serving_model(serving_path)
        if serving is None:
            raise ModelError(
                "no model has been pushed yet", where=serving_path, fix="run the pipeline: `bike-pipeline run`"
            )
        return FoundModel(serving.model_id, serving)
    number = _number_of(name)
    # Two workspaces may have pushed in the same second, so that both serve a version of that number.
    pushes = sorted(
        lineage.pushes(), key=lambda push: (os.path.dirname(push.destination) == serving_path, push.version)
    )
    for push in reversed(pushes):
        if number in (push.version, push.model_id):
            return FoundModel(push.model_id, push)
    if any(model.model_id == number for model in lineage.models()):
        return FoundModel(number, None)
    raise ModelError(
        f"there is no model '{name}'",
        where=serving_path,
        fix="`bike-pipeline models` lists every model and served version",
    )


def as_trained(lineage: Lineage, model_id: int) -> FoundModel:
    """Return a model with its newest push by a run, without what labels told it since."""
    pushes = [push for push in lineage.pushes() if push.model_id == model_id and not push.feedback]
    return FoundModel(model_id, pushes[-1] if pushes else None)


def _number_of(name: str) -> int:
    """Return the number that a person wrote, or that of the model in a pushed folder; -1 for anything else."""
    if name.isdigit():
        return int(name)
    folder = Path(name).resolve()
    if not folder.is_dir() or not folder.name.isdigit():
        return -1
    record = ModelRegistry(folder.parent).push_record(int(folder.name))
    return int(record["model_id"]) if record and "model_id" in record else -1
