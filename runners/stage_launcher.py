"""Launches one stage of a compiled pipeline: driver, cache, executor, publisher, and the reason where it failed."""

from __future__ import annotations

import functools
import re
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from tfx.orchestration.local import runner_utils
from tfx.orchestration.portable import beam_executor_operator
from tfx.proto.orchestration import executable_spec_pb2

from bike_pipeline import progress
from bike_pipeline.data.spans import SpanStore
from bike_pipeline.errors import BikePipelineError, StageError, StorageError, first_words, full_place, is_of_storage
from bike_pipeline.lineage.queries.evidence import window_of
from bike_pipeline.lineage.queries.run_results import stage_summary
from bike_pipeline.lineage.records import sealing
from bike_pipeline.lineage.store.connection import STORE_ERRORS, failure_of
from bike_pipeline.lineage.store.metadata_store import CACHED, Lineage, prop
from bike_pipeline.lineage.store.writing import record_failure
from bike_pipeline.run_events import RunObserver, StageResult
from bike_pipeline.runners.located_metadata import LocatedMetadata
from bike_pipeline.runners.sealed_stages import SealingLauncher
from bike_pipeline.signals import interruption

MEND_STORAGE = "free space or grant write permission, then run again: finished stages are not repeated"
RUN_AGAIN = "run again: finished stages are not repeated, and this one starts anew"
# How Beam tells that a job failed on an engine of its own processes, and Transform's last step, as tensorflow-transform
# names it.
_ENGINE_FAILED = re.compile(r"Pipeline \S+ failed in state FAILED")
_GRAPH_WRITER = "WriteTransformFn"
# Whoever has it may use the metadata store: SQLite takes one writer at a time, and a second one that finds the file
# locked fails after a while.
_STORE_TURN = threading.RLock()

# Takes the name of the stage that the pipeline is for.
MakeBeamPipeline = Callable[[str], Any]


class SerialMetadata(LocatedMetadata):
    """TFX's connection to ML Metadata, one stage at a time."""

    def __enter__(self) -> SerialMetadata:
        _STORE_TURN.acquire()
        try:
            super().__enter__()
        except BaseException:
            _STORE_TURN.release()
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            super().__exit__(*error)
        finally:
            _STORE_TURN.release()


class SerialObserver(RunObserver):
    """Passes on what stages tell, one call at a time."""

    def __init__(self, observer: RunObserver) -> None:
        turn = threading.RLock()

        def in_turn(tell: Callable[..., None]) -> Callable[..., None]:
            def wait_and_tell(*told: Any) -> None:
                with turn:
                    tell(*told)

            return wait_and_tell

        for name in ("planned", "started", "progressed", "finished"):
            setattr(self, name, in_turn(getattr(observer, name)))


class StageLauncher:
    """Launches the stages of one compiled pipeline, from any thread."""

    def __init__(
        self, spec: Any, connection_config: Any, observer: RunObserver, make_beam_pipeline: MakeBeamPipeline
    ) -> None:
        self._spec = spec
        self._deployment = runner_utils.extract_local_deployment_config(spec)
        self._connection_config = connection_config
        self._observer = SerialObserver(observer)
        self._operators = {executable_spec_pb2.BeamExecutableSpec: beam_operator(make_beam_pipeline)}
        self._nodes = {node.pipeline_node.node_info.id: node.pipeline_node for node in spec.nodes}

    @property
    def upstream(self) -> dict[str, list[str]]:
        """The stages in their order, each with those that must be done before it."""
        return {name: list(node.upstream_nodes) for name, node in self._nodes.items()}

    def launch(self, name: str) -> StageResult:
        """Run one stage, or find it in the cache.

        Raises:
            BikePipelineError: the stage refused or failed; ML Metadata holds the reason.
            KeyboardInterrupt: it was interrupted.
        """
        self._observer.started(name)
        begin = time.monotonic()
        stage = SealingLauncher(
            pipeline_node=self._nodes[name],
            mlmd_connection=SerialMetadata(self._connection_config),
            pipeline_info=self._spec.pipeline_info,
            pipeline_runtime_spec=self._spec.runtime_spec,
            executor_spec=runner_utils.extract_executor_spec(self._deployment, name),
            custom_driver_spec=runner_utils.extract_custom_driver_spec(self._deployment, name),
            custom_executor_operators=self._operators,
        )
        try:
            with progress.listening(lambda fraction, text: self._observer.progressed(name, fraction, text)):
                execution_id = int(stage.launch().execution_id)
                self._check_answer(name, execution_id)
        except (Exception, KeyboardInterrupt) as error:
            root = self._spec.runtime_spec.pipeline_root.field_value.string_value
            failure = as_failure(name, error, (root, self._connection_config.sqlite.filename_uri))
            seconds = time.monotonic() - begin
            execution_id = write_error(self._connection_config, self._spec, name, failure)
            self._observer.finished(StageResult(name, execution_id, "failed", seconds, str(failure)))
            raise failure from error
        seconds = time.monotonic() - begin
        with SerialMetadata(self._connection_config) as store:
            lineage = Lineage(store.store)
            execution = lineage.execution(execution_id)
            state = "cached" if execution.last_known_state == CACHED else "done"
            text = stage_summary(name, lineage.outputs(execution.id))
        result = StageResult(name, execution.id, state, seconds, text)
        self._observer.finished(result)
        return result

    def _check_answer(self, name: str, execution_id: int) -> None:
        """Refuse an answer from the cache whose files, or the rows it was made of, are not what they were.

        What the stage itself reads and writes is checked where it runs.
        """
        with SerialMetadata(self._connection_config) as store:
            lineage = Lineage(store.store)
            execution = lineage.execution(execution_id)
            outputs = lineage.outputs(execution_id) if execution.last_known_state == CACHED else {}
        for key, artifact in ((key, artifact) for key, listed in outputs.items() for artifact in listed):
            sealing.check(artifact.uri, prop(artifact, sealing.SEAL_PROPERTY), name, key)
            for entry in window_of(artifact):
                SpanStore(prop(execution, "input_base")).check_files(entry["span"], entry["version"])


def beam_operator(make_beam_pipeline: MakeBeamPipeline) -> Any:
    """Return TFX's operator for Beam executors, whose Beam pipelines `make_beam_pipeline` makes.

    As part of the pipeline Beam's flags would be part of every cache key, although they do not change results; handed
    to the executor as flags, TFX would package itself anew for each stage, for workers on other machines.
    """

    class _Operator(beam_executor_operator.BeamExecutorOperator):
        def run_executor(self, execution_info: Any, make_beam_pipeline_fn: Any = None) -> Any:
            stage = execution_info.pipeline_node.node_info.id
            make = make_beam_pipeline_fn or functools.partial(make_beam_pipeline, stage)
            return super().run_executor(execution_info, make)

    return _Operator


def as_failure(stage: str, error: BaseException, places: Sequence[str] = ()) -> BikePipelineError | KeyboardInterrupt:
    """Return what a person is told of an error: our own error however deep it lies, a storage error, or the stage's.

    Args:
        stage: where it was raised.
        error: what was raised.
        places: where the stage writes, for an error of storage that does not say where.
    """
    if isinstance(error, KeyboardInterrupt):
        return error
    asked = interruption()
    if asked is not None:
        # Whatever a library made of it, or found amiss as its work was cut off.
        return asked
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, BikePipelineError | KeyboardInterrupt):
            return cause
        if isinstance(cause, OSError) and cause.errno is not None:
            return StorageError(
                f"{cause.strerror or cause}",
                where=f"{stage}: {cause.filename}" if cause.filename else _written(stage, places),
                fix=MEND_STORAGE,
            )
        cause = cause.__cause__ or cause.__context__
    lost_store = failure_of(error)
    if lost_store is not None:
        return lost_store
    first = first_words(error)
    if is_of_storage(error):
        return StorageError(first, where=_written(stage, places), fix=MEND_STORAGE)
    if _ENGINE_FAILED.match(first) and _GRAPH_WRITER in str(error) and "NotFoundError" in str(error):
        # It moves what it wrote to its place: a second attempt within the job does not find it any more.
        return StageError(
            "the engine lost a worker while the graph was written, and repeated a step that cannot be repeated within "
            "a job",
            where=stage,
            fix=RUN_AGAIN,
        )
    return StageError(
        f"{type(error).__name__}: {first}",
        where=stage,
        fix="the log holds the whole story; after mending, run again: finished stages are not repeated",
    )


def _written(stage: str, places: Sequence[str]) -> str:
    full = full_place((*places, tempfile.gettempdir())) if places else ""
    return f"{stage}: {full}" if full else stage


def write_error(connection_config: Any, spec: Any, stage: str, failure: BaseException) -> int:
    """Put the reason beside the failed execution in ML Metadata; return its id (0 where it was never registered)."""
    from absl import logging

    run_id = spec.runtime_spec.pipeline_run_id.field_value.string_value
    try:
        with SerialMetadata(connection_config) as store:
            reason = str(failure) or type(failure).__name__
            return record_failure(Lineage(store.store), run_id, stage, reason, isinstance(failure, KeyboardInterrupt))
    except STORE_ERRORS as error:
        # The failure itself is what the person must hear of; that the store cannot be written is in the log.
        logging.error("The failure could not be recorded in ML Metadata: %s", error)
        return 0
