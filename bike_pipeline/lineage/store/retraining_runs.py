"""Why a run took place and what came of it, as ML Metadata has it: an execution in the pipeline run's context."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from ml_metadata import errors as mlmd_errors

from bike_pipeline.lineage.records.run_record import RUN_CONTEXT
from bike_pipeline.lineage.store.metadata_store import Lineage, prop
from bike_pipeline.lineage.store.writing import put_after_run
from bike_pipeline.stages import RETRAINING_RUN


def record_run(lineage: Lineage, run_id: str, found: Mapping[str, str], failed: bool) -> None:
    """Record a run that triggers asked for, once.

    Args:
        lineage: the store.
        run_id: the pipeline's run; "" if it came to none.
        found: what is known of it, by the name of its property: `trigger`, `reason`, and `sha256`, which tells such
            runs apart.
        failed: whether it failed, and so is tried again.
    """
    run = lineage.store.get_context_by_type_and_name(RUN_CONTEXT, run_id) if run_id else None
    with suppress(mlmd_errors.AlreadyExistsError):
        put_after_run(lineage, RETRAINING_RUN, found["sha256"], (), found, run=run, failed=failed)


def cause_of(lineage: Lineage, run_id: str) -> str:
    """Return which triggers asked for a run of the pipeline, and why; "" if none did."""
    found = [e for e in lineage.executions_of(run_id, stages=False) if e.type == f"bike.{RETRAINING_RUN}"]
    return f"{prop(found[-1], 'trigger')}: {prop(found[-1], 'reason')}" if found else ""
