"""One run of the pipeline from this process: the workspace held, the stages in their order, the result.

What runs is `bike_pipeline.pipeline`; runners say how many stages may run at once and where their Beam pipelines go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bike_pipeline.lean_imports import lean_imports, uncollected
from bike_pipeline.lineage.records.last_run import refuse_a_lost_store
from bike_pipeline.run_cache.rerun import Rerun, new_run_id
from bike_pipeline.run_events import RunObserver, RunResult
from bike_pipeline.runners.interruption import interruptible
from bike_pipeline.runners.scratch import scratch
from bike_pipeline.settings import Settings
from bike_pipeline.storage.atomic_files import workspace_lock

if TYPE_CHECKING:
    from bike_pipeline.runners.stage_launcher import MakeBeamPipeline

__all__ = ["run_pipeline", "workspace_lock"]


def run_pipeline(
    settings: Settings,
    observer: RunObserver,
    make_beam_pipeline: MakeBeamPipeline,
    *,
    at_once: int,
    runner: str = "local",
    pipeline_root: str = "",
    enable_cache: bool = True,
    accept_baseline_reset: bool = False,
) -> RunResult:
    """Run the pipeline to its end, or record that nothing has changed; the caller holds the workspace."""
    refuse_a_lost_store(settings, accept_baseline_reset)
    rerun = Rerun(settings, enable_cache, accept_baseline_reset, runner)
    answered = rerun.answer(observer)
    if answered is not None:
        return answered
    observer.loading()
    with (
        lean_imports(google_cloud="gs://" in settings.model_dump_json()),
        scratch(settings.workspace_path),
    ):
        return _run(
            settings,
            observer,
            make_beam_pipeline,
            rerun,
            at_once,
            runner,
            pipeline_root,
            enable_cache,
            accept_baseline_reset,
        )


def _run(
    settings: Settings,
    observer: RunObserver,
    make_beam_pipeline: MakeBeamPipeline,
    rerun: Rerun,
    at_once: int,
    runner: str,
    pipeline_root: str,
    enable_cache: bool,
    accept_baseline_reset: bool,
) -> RunResult:
    with uncollected():
        from tfx.dsl.compiler import compiler, constants
        from tfx.orchestration.portable import runtime_parameter_utils

        from bike_pipeline.lineage.queries.run_results import run_result
        from bike_pipeline.lineage.records.last_run import last_run, record_last_run
        from bike_pipeline.lineage.records.run_record import record_run, source_of_this_run
        from bike_pipeline.lineage.store.connection import open_at
        from bike_pipeline.lineage.store.metadata_store import Lineage
        from bike_pipeline.lineage.store.writing import close_interrupted
        from bike_pipeline.model_registry import signing
        from bike_pipeline.pipeline import create_pipeline
        from bike_pipeline.runners.scheduling import run_in_order
        from bike_pipeline.runners.stage_launcher import SerialMetadata, StageLauncher

    open_at(settings.metadata_address, create=True, upgrade=settings.metadata.upgrade)
    definition = create_pipeline(settings, enable_cache, accept_baseline_reset)
    spec = compiler.Compiler().compile(definition)
    run_id = new_run_id()
    runtime_parameter_utils.substitute_runtime_parameter(
        spec,
        {
            constants.PIPELINE_RUN_ID_PARAMETER_NAME: run_id,
            constants.PIPELINE_ROOT_PARAMETER_NAME: pipeline_root or settings.pipeline_root,
        },
    )
    # A key that cannot be used is told before the work, not after it.
    signing.use(settings)
    signing.check()
    config = definition.metadata_connection_config
    stages = StageLauncher(spec, config, observer, make_beam_pipeline)
    observer.planned(list(stages.upstream))
    with SerialMetadata(config) as store:
        close_interrupted(Lineage(store.store), last_run(settings.workspace_path))
        record_run(store.store, source_of_this_run(settings, run_id, runner))
    record_last_run(settings.workspace_path, run_id)
    try:
        with interruptible(stages.launch) as launch:
            results = run_in_order(stages.upstream, launch, at_once)
    except KeyboardInterrupt:
        # Stages beside the interrupted one end with this process.
        with SerialMetadata(config) as store:
            close_interrupted(Lineage(store.store), run_id)
        raise
    with SerialMetadata(config) as store:
        lineage = Lineage(store.store)
        rerun.keep(
            lineage, run_id, {node.pipeline_node.node_info.id: _parameters(node.pipeline_node) for node in spec.nodes}
        )
        return run_result(lineage, run_id, results)


def _parameters(node: Any) -> dict[str, Any]:
    """Return the parameters that the definition gives a stage, as ML Metadata holds them."""
    return {name: value.field_value for name, value in node.parameters.parameters.items()}
