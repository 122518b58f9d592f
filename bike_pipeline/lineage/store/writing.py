"""What runners write about executions, beside what TFX's own launcher writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ml_metadata import errors as mlmd_errors
from ml_metadata.proto import metadata_store_pb2 as pb

from bike_pipeline.lineage.store.metadata_store import (
    CACHED,
    CANCELED,
    COMPLETE,
    ERROR_PROPERTY,
    FAILED,
    RUNNING,
    Lineage,
)


def execution_type(name: str, base_type: int) -> pb.ExecutionType:
    """Return the type of an execution; `base_type` is MLMD's number of the system type that it specializes, or 0."""
    return pb.ExecutionType(name=name, base_type=base_type or None)


def close_interrupted(lineage: Lineage, run_id: str) -> None:
    """Mark what a killed process left as running: the lock is ours, so no run of this workspace can be going on.

    Runs of other workspaces may be, in the same store; so only the last run of this one (or "") is looked at.
    """
    left = [execution for execution in lineage.executions_of(run_id) if execution.last_known_state == RUNNING]
    for execution in left:
        execution.last_known_state = CANCELED
    if left:
        lineage.store.put_executions(left)


def record_failure(lineage: Lineage, run_id: str, stage: str, reason: str, interrupted: bool = False) -> int:
    """Put the reason beside a failed stage; return its execution's id (0 if it was never registered).

    What still stands as running was interrupted, and an answer from the cache that is refused is a failure. What is
    known to be `interrupted` may stand as failed, where a library raised an error in the interruption's place.
    """
    for execution in lineage.executions_of(run_id):
        if lineage.stage_of(execution) == stage:
            execution.custom_properties[ERROR_PROPERTY].string_value = reason
            state = execution.last_known_state
            execution.last_known_state = (
                CANCELED if interrupted else {RUNNING: CANCELED, CACHED: FAILED}.get(state, state)
            )
            lineage.store.put_executions([execution])
            return int(execution.id)
    return 0


def record_end(lineage: Lineage, execution_id: int, reason: str, interrupted: bool) -> None:
    """Write down that and why an execution failed or was interrupted."""
    execution = lineage.execution(execution_id)
    execution.last_known_state = CANCELED if interrupted else FAILED
    execution.custom_properties[ERROR_PROPERTY].string_value = reason
    lineage.store.put_executions([execution])


def event_of(kind: Any, key: str) -> pb.Event:
    """Return the event of a kind, input or output, that links the only artifact of a key."""
    event = pb.Event(type=kind)
    event.path.steps.add().key = key
    event.path.steps.add().index = 0
    return event


def put_execution(
    lineage: Lineage,
    execution: pb.Execution,
    linked: Iterable[tuple[pb.Artifact, pb.Event]],
    contexts: Sequence[pb.Context],
    reuse_contexts: bool = False,
) -> int:
    """Write an execution with its artifacts in one transaction; return its id. With an id, it is written over.

    Of each event of `linked`, its kind and its key count. `reuse_contexts` looks contexts without an id up by name.
    MLMD's AlreadyExistsError says that another execution of that type has its name.
    """
    pairs = [(artifact, pb.Event(type=event.type, path=event.path)) for artifact, event in linked]
    execution_id, _, _ = lineage.store.put_execution(
        execution,
        pairs,
        list(contexts),
        reuse_context_if_already_exist=reuse_contexts,
        force_reuse_context=reuse_contexts,
    )
    return int(execution_id)


def put_after_run(
    lineage: Lineage,
    stage: str,
    name: str,
    linked: Iterable[tuple[pb.Artifact, pb.Event]],
    values: Mapping[str, str],
    *,
    run: pb.Context | None = None,
    failed: bool = False,
) -> None:
    """Write the execution of a stage that is none of the pipeline's, with `values` as its properties.

    It has ended, and belongs to a `run` if one is given. MLMD's AlreadyExistsError says that one of its name is there.
    """
    kind = lineage.store.put_execution_type(execution_type(f"bike.{stage}", 0))
    node = lineage.store.put_context_type(pb.ContextType(name="node"), can_add_fields=True, can_omit_fields=True)
    state = FAILED if failed else COMPLETE
    execution = pb.Execution(type_id=kind, last_known_state=state, name=f"{stage} {name}")
    for key, value in values.items():
        execution.custom_properties[key].string_value = value
    # As feedback's first releases named it: a name that stands in a store stays.
    contexts = [pb.Context(type_id=node, name=f"feedback.{stage}"), *([run] if run is not None else [])]
    put_execution(lineage, execution, linked, contexts, reuse_contexts=True)


def record_cached(
    lineage: Lineage, run_id: str, artifact_id: int, contexts_of: Callable[[str], Sequence[pb.Context]]
) -> None:
    """Write down that a run was handed an artifact of an earlier one, and all that led to it, as answered from a cache.

    `contexts_of` returns what a stage's executions belong to in this run.
    """
    producer = lineage.producer(artifact_id)
    if producer is None:
        return
    node = lineage.stage_of(producer)
    contexts = contexts_of(node)
    if node in {lineage.stage_of(execution) for execution in lineage.executions_of(run_id)}:
        return
    linked = lineage.store.get_events_by_execution_ids([producer.id])
    for event in linked:
        if event.type == pb.Event.INPUT:
            record_cached(lineage, run_id, event.artifact_id, contexts_of)
    # One name for all who notice it at the same time: the store takes the first.
    name, properties = f"{run_id}.{node}.cached", producer.custom_properties
    cached = pb.Execution(type_id=producer.type_id, last_known_state=CACHED, name=name, custom_properties=properties)
    artifacts = {a.id: a for a in lineage.store.get_artifacts_by_id([event.artifact_id for event in linked])}
    try:
        put_execution(lineage, cached, [(artifacts[event.artifact_id], event) for event in linked], contexts)
    except mlmd_errors.AlreadyExistsError:
        return
