"""The last run that this workspace began, and what else shows that there was one.

Other workspaces may write to the same metadata store. Where the workspace's own is gone, it is not begun anew without a
word: a run that knows of no earlier model would train, push and promote as if it were the first.
"""

from __future__ import annotations

from pathlib import Path

from bike_pipeline.errors import MetadataError
from bike_pipeline.model_registry import ModelRegistry
from bike_pipeline.settings import Settings
from bike_pipeline.storage.atomic_files import replace_file

_FILE = "last-run"


def last_run(workspace: Path) -> str:
    """Return the run's name in ML Metadata; "" if no run began here yet, or where the note of it is damaged."""
    try:
        return (workspace / _FILE).read_text(encoding="utf-8").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return ""


def record_last_run(workspace: Path, run_id: str) -> None:
    """Note that a run begins, before its first stage, so that a killed one can be told from those of others."""
    replace_file(workspace / _FILE, f"{run_id}\n".encode())


def refuse_a_lost_store(settings: Settings, accepted: bool = False) -> None:
    """Raise a MetadataError where the workspace's own store is gone or empty, and the workspace shows that it had one.

    A server, or a file elsewhere, is not looked for. `accepted`: a new store may be begun all the same.
    """
    file = settings.metadata_file
    if accepted or settings.metadata.mysql is not None or settings.metadata.sqlite_file:
        return
    there = file.is_file()
    if there and file.stat().st_size:
        return
    trace = _trace(settings)
    if trace:
        raise MetadataError(
            f"the metadata store is {'empty' if there else 'gone'}, although {trace}",
            where=str(file),
            fix="restore it from a backup; or begin one that knows of no earlier run, with "
            "`bike-pipeline run --accept-baseline-reset`",
        )


def _trace(settings: Settings) -> str:
    """Return what shows that the workspace had a store, in words; "" if nothing does."""
    if name := last_run(settings.workspace_path):
        return f"run {name} took place here"
    base_path = Path(settings.serving_path)
    if "://" in settings.serving_path or settings.workspace_path not in base_path.parents:
        return ""
    registry = ModelRegistry(base_path)
    for version in reversed(registry.versions()):
        # `reproduce` puts a baseline into its scratch folder, under no model's number.
        if int((registry.push_record(version) or {}).get("model_id", -1)) >= 0:
            return f"version {version} was pushed from here"
    return ""
