"""Free the files of old artifacts, never those that a model that serves needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bike_pipeline.lineage.queries.garbage_collection import Payload
    from bike_pipeline.settings import Settings


@dataclass(frozen=True)
class GarbageCollection:
    """What was freed, or with `dry_run` would be: every artifact with files, and why they are kept."""

    dry_run: bool
    freed_bytes: int
    artifacts: list[Payload]


def collect_garbage(
    settings: Settings, *, keep_blessed: int = 3, keep_days: float = 30, dry_run: bool = False, wait: bool = False
) -> GarbageCollection:
    """Free the files of old artifacts; their records stay. Interrupted, the next call goes on.

    Args:
        settings: where artifacts, records and served models are.
        keep_blessed: keep the lineage of so many of the newest blessed models.
        keep_days: keep what was made, or read from the cache, in so many days.
        dry_run: free nothing.
        wait: wait for a run in this workspace instead of raising BusyError.
    """
    from bike_pipeline.lineage.queries import garbage_collection
    from bike_pipeline.lineage.queries.history import History
    from bike_pipeline.lineage.records.last_run import last_run
    from bike_pipeline.lineage.store.writing import close_interrupted
    from bike_pipeline.storage.locks import workspace_lock
    from bike_pipeline.use_cases.metadata import lineage_of

    # A store that is not there must not make a workspace.
    lineage_of(settings)
    with workspace_lock(settings.workspace_path, wait):
        lineage = lineage_of(settings)
        if not dry_run:
            # The lock is ours: what a killed run left as running does not run any more.
            close_interrupted(lineage, last_run(settings.workspace_path))
        history = History(lineage)
        payloads = garbage_collection.plan(
            lineage, history, settings.pipeline_root, settings.serving_path, keep_blessed, keep_days
        )
        if not dry_run:
            garbage_collection.collect(lineage, history, payloads)
    return GarbageCollection(dry_run, sum(payload.size for payload in payloads if payload.free), payloads)
