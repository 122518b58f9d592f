"""The local runner: every stage in this process, one after the other, with lineage in a SQLite file."""

from __future__ import annotations

import errno
import os
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bike_pipeline import progress
from bike_pipeline.errors import BikePipelineError, BusyError, StageError, StorageError
from bike_pipeline.run_events import RunObserver, RunResult, StageResult
from bike_pipeline.settings import Settings

_MEND_STORAGE = "free space or grant write permission, then run again: finished stages are not repeated"
# TensorFlow and ML Metadata raise errors of their own kinds for what the operating system refused.
_STORAGE_PHRASES = (
    *(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS)),
    "disk I/O error",
    "database or disk is full",
    "attempt to write a readonly database",
)


class LocalRunner:
    """Runs the pipeline on this machine."""

    name = "local"

    def __init__(self, settings: Settings, observer: RunObserver, wait: bool = False) -> None:
        """Prepare a run.

        Args:
            settings: the settings of the run.
            observer: is told about every stage.
            wait: wait for another run on the same workspace to end, instead of refusing.
        """
        self._settings = settings
        self._observer = observer
        self._wait = wait

    def run(self, enable_cache: bool = True, accept_baseline_reset: bool = False) -> RunResult:
        """Run the pipeline to its end.

        Args:
            enable_cache: answer stages from earlier runs where nothing changed.
            accept_baseline_reset: see `create_pipeline`.

        Raises:
            BusyError: another run holds the workspace and `wait` is off.
            StorageError: the workspace cannot be written.
            BikePipelineError: a stage refused or failed; ML Metadata holds the reason.
        """
        with _workspace_lock(self._settings.workspace_path, self._wait):
            return self._run(enable_cache, accept_baseline_reset)

    def _run(self, enable_cache: bool, accept_baseline_reset: bool) -> RunResult:
        from tfx.dsl.compiler import compiler, constants
        from tfx.orchestration import metadata
        from tfx.orchestration.local import runner_utils
        from tfx.orchestration.portable import runtime_parameter_utils

        from bike_pipeline.lineage.store import Lineage, open_store
        from bike_pipeline.pipeline import create_pipeline

        if self._settings.metadata_file.exists():
            open_store(self._settings.metadata_file)
        definition = create_pipeline(self._settings, enable_cache, accept_baseline_reset)
        spec = compiler.Compiler().compile(definition)
        run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
        runtime_parameter_utils.substitute_runtime_parameter(spec, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: run_id})
        deployment = runner_utils.extract_local_deployment_config(spec)
        connection = metadata.Metadata(definition.metadata_connection_config)
        nodes = [node.pipeline_node for node in spec.nodes]
        names = [node.node_info.id for node in nodes]
        self._observer.planned(names)
        with connection as store:
            _close_interrupted(Lineage(store.store))
        config = definition.metadata_connection_config
        results = [self._stage(node, spec, deployment, config) for node in nodes]
        with connection as store:
            return _result(Lineage(store.store), run_id, results)

    def _stage(self, node: Any, spec: Any, deployment: Any, connection_config: Any) -> StageResult:
        from tfx.orchestration import metadata
        from tfx.orchestration.local import runner_utils
        from tfx.orchestration.portable import launcher
        from tfx.proto.orchestration import executable_spec_pb2

        from bike_pipeline.lineage.outcomes import outcome
        from bike_pipeline.lineage.store import CACHED, Lineage

        name = node.node_info.id
        self._observer.started(name)
        begin = time.monotonic()
        stage = launcher.Launcher(
            pipeline_node=node,
            mlmd_connection=metadata.Metadata(connection_config),
            pipeline_info=spec.pipeline_info,
            pipeline_runtime_spec=spec.runtime_spec,
            executor_spec=runner_utils.extract_executor_spec(deployment, name),
            custom_driver_spec=runner_utils.extract_custom_driver_spec(deployment, name),
            custom_executor_operators={
                executable_spec_pb2.BeamExecutableSpec: _beam_operator(self._settings.beam.pipeline_args)
            },
        )
        try:
            with progress.listening(lambda fraction, text: self._observer.progressed(name, fraction, text)):
                information = stage.launch()
        except (Exception, KeyboardInterrupt) as error:
            failure = _failure(name, error)
            seconds = time.monotonic() - begin
            execution_id = _write_error(connection_config, spec, name, failure)
            self._observer.finished(StageResult(name, execution_id, "failed", seconds, str(failure)))
            raise failure from error
        seconds = time.monotonic() - begin
        with metadata.Metadata(connection_config) as store:
            lineage = Lineage(store.store)
            execution = lineage.store.get_executions_by_id([information.execution_id])[0]
            state = "cached" if execution.last_known_state == CACHED else "done"
            text = outcome(name, lineage.outputs(execution.id))
        result = StageResult(name, execution.id, state, seconds, text)
        self._observer.finished(result)
        return result


def _workspace_lock(workspace: Path, wait: bool) -> Any:
    """Return a context that holds the workspace: two runs at once on one metadata store would harm each other."""
    from filelock import FileLock, Timeout

    class _Lock:
        def __enter__(self) -> None:
            try:
                workspace.mkdir(parents=True, exist_ok=True)
                self._lock = FileLock(workspace / "run.lock", timeout=-1 if wait else 0)
                self._lock.acquire()
            except Timeout:
                raise BusyError(
                    "another run is working in this workspace",
                    where=str(workspace),
                    fix="let it end, or call again with --wait",
                ) from None
            except OSError as error:
                raise StorageError(
                    f"cannot write to the workspace ({error.strerror or error})",
                    where=str(workspace),
                    fix="grant write permission, free space, or choose another one: --set workspace=FOLDER",
                ) from None

        def __exit__(self, *_: object) -> None:
            self._lock.release()

    return _Lock()


def _beam_operator(arguments: Sequence[str]) -> Any:
    """Return TFX's operator for Beam executors, which makes Beam pipelines with the given flags.

    As part of the pipeline the flags would be part of every cache key, although they do not change results; handed to
    the executor as flags, TFX would package itself anew for each stage, for workers on other machines.
    """
    import apache_beam
    from tfx.orchestration.portable import beam_executor_operator

    class _Operator(beam_executor_operator.BeamExecutorOperator):
        def run_executor(self, execution_info: Any, make_beam_pipeline_fn: Any = None) -> Any:
            return super().run_executor(
                execution_info, make_beam_pipeline_fn or (lambda: apache_beam.Pipeline(argv=list(arguments)))
            )

    return _Operator


def _failure(stage: str, error: BaseException) -> BikePipelineError | KeyboardInterrupt:
    if isinstance(error, BikePipelineError | KeyboardInterrupt):
        return error
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, BikePipelineError):
            return cause
        if isinstance(cause, OSError) and cause.errno is not None:
            return StorageError(
                f"{cause.strerror or cause}",
                where=f"{stage}: {cause.filename}" if cause.filename else stage,
                fix=_MEND_STORAGE,
            )
        cause = cause.__cause__ or cause.__context__
    first = next((line for line in str(error).splitlines() if line.strip()), "") or type(error).__name__
    if any(phrase in str(error) for phrase in _STORAGE_PHRASES):
        return StorageError(first[:300], where=stage, fix=_MEND_STORAGE)
    return StageError(
        f"{type(error).__name__}: {first[:300]}",
        where=stage,
        fix="the log holds the whole story; after mending, run again: finished stages are not repeated",
    )


def _write_error(connection_config: Any, spec: Any, stage: str, failure: BaseException) -> int:
    """Put the reason beside the failed execution in ML Metadata; return its id (0 where it was never registered)."""
    from absl import logging
    from ml_metadata import errors as mlmd_errors
    from tfx.orchestration import metadata

    from bike_pipeline.lineage.store import Lineage

    try:
        with metadata.Metadata(connection_config) as store:
            return _note_failure(Lineage(store.store), spec, stage, failure)
    except (mlmd_errors.StatusError, RuntimeError) as error:
        # The failure itself is what the person must hear of; that the store cannot be written is in the log.
        logging.error("The failure could not be recorded in ML Metadata: %s", error)
        return 0


def _note_failure(lineage: Any, spec: Any, stage: str, failure: BaseException) -> int:
    from bike_pipeline.lineage.store import ERROR_PROPERTY

    run_id = spec.runtime_spec.pipeline_run_id.field_value.string_value
    context = lineage.store.get_context_by_type_and_name("pipeline_run", run_id)
    for execution in lineage.store.get_executions_by_context(context.id) if context else []:
        if lineage.stage_of(execution) == stage:
            execution.custom_properties[ERROR_PROPERTY].string_value = str(failure) or type(failure).__name__
            if execution.last_known_state == execution.RUNNING:
                execution.last_known_state = execution.CANCELED
            lineage.store.put_executions([execution])
            return int(execution.id)
    return 0


def _close_interrupted(lineage: Any) -> None:
    """Mark what a killed process left as running: the lock is ours, so nothing else can be running."""
    from ml_metadata.proto import metadata_store_pb2 as pb

    left = [e for e in lineage.store.get_executions() if e.last_known_state == pb.Execution.RUNNING]
    for execution in left:
        execution.last_known_state = pb.Execution.CANCELED
    if left:
        lineage.store.put_executions(left)


def _result(lineage: Any, run_id: str, results: list[StageResult]) -> RunResult:
    import json

    from bike_pipeline.lineage.store import prop

    by_name = {result.name: result for result in results}
    pushed = lineage.outputs(by_name["Pusher"].execution_id)["pushed_model"][0]
    evaluation = lineage.outputs(by_name["Evaluator"].execution_id)["evaluation"][0]
    decisions = json.loads(Path(os.path.join(evaluation.uri, "decisions.json")).read_text(encoding="utf-8"))
    was_pushed = prop(pushed, "pushed") == 1
    return RunResult(
        run_id=run_id,
        stages=tuple(results),
        pushed_version=int(prop(pushed, "pushed_version")) if was_pushed else None,
        newly_pushed=was_pushed and by_name["Pusher"].state == "done",
        decisions=decisions,
        destination=str(prop(pushed, "pushed_destination")) if was_pushed else "",
    )
