"""`bike-pipeline run --runner kubeflow --local`: compile, then run what was compiled, on this machine."""

from __future__ import annotations

import os
import time
import uuid
from datetime import UTC, datetime

from bike_pipeline import extras
from bike_pipeline.errors import BikePipelineError
from bike_pipeline.run_events import RunObserver, RunResult, StageResult
from bike_pipeline.settings import PROJECT_ROOT, Settings
from bike_pipeline.settings.kubeflow import ClusterMetadata


def on_this_machine(settings: Settings) -> Settings:
    """Return the settings with the workspace in the place of the cluster's volumes and metadata store."""
    folder = settings.workspace_path / "kubeflow"
    changes = {
        "project_folder": str(PROJECT_ROOT),
        "span_store": settings.store_uri,
        "serving_folder": os.path.dirname(settings.serving_path),
        "metadata": ClusterMetadata(sqlite_file=str(settings.metadata_file)),
        "artifact_folder": str(folder / "volume") if settings.kubeflow.artifact_folder else "",
    }
    return settings.model_copy(update={"kubeflow": settings.kubeflow.model_copy(update=changes)})


def _signing_key(settings: Settings) -> dict[str, str]:
    """Return the variable that names the signing key, as a secret would set it in a cluster.

    Raises:
        ConfigurationError: the configured key cannot be used.
    """
    from bike_pipeline.serving import signing

    signing.use_key_file(settings.signing_key_file, make=not settings.signing.key_file)
    signing.signer()
    given = {signing.KEY_VARIABLE, signing.KEY_FILE_VARIABLE} & set(os.environ)
    return {} if given else {signing.KEY_FILE_VARIABLE: str(settings.signing_key_file)}


def run_compiled(settings: Settings, observer: RunObserver, accept_baseline_reset: bool = False) -> RunResult:
    """Compile the pipeline and run the compiled spec; the caller holds the workspace.

    Args:
        settings: the settings of the run.
        observer: is told about every task.
        accept_baseline_reset: value of the run's parameter of that name.

    Raises:
        BikePipelineError: a task refused or failed; ML Metadata holds the reason.
    """
    extras.require("kubeflow", "running the compiled spec")
    from bike_pipeline.lineage.outcomes import outcome, run_result
    from bike_pipeline.lineage.run_record import record_run, source_of_this_run
    from bike_pipeline.lineage.store import Lineage
    from runners.kubeflow.compiler import compile_pipeline
    from runners.kubeflow.emulator import Emulator
    from runners.kubeflow.mounts import Mounts
    from runners.kubeflow.record import Store
    from runners.pipeline_run import close_interrupted
    from runners.scheduling import run_in_order
    from runners.stage_launcher import SerialObserver

    folder = settings.workspace_path / "kubeflow"
    run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
    local = on_this_machine(settings)
    file = compile_pipeline(local, "kubeflow", folder / "runs" / f"{run_id}.yaml")
    parameters = {"accept_baseline_reset": int(accept_baseline_reset)}
    emulator = Emulator(file, folder, run_id, parameters, _signing_key(settings))
    artifacts = Mounts(emulator.store.root, local.kubeflow.artifact_folder)
    store = Store(local.kubeflow.metadata.address)
    seen = SerialObserver(observer)
    seen.planned(list(emulator.upstream))
    with store.opened() as handle:
        close_interrupted(Lineage(handle.store))
        # The first record of a run stays: this one has the settings as they were before they were fitted to this machine.
        record_run(handle.store, source_of_this_run(settings, run_id, "kubeflow --local"))

    def execution_of(lineage: Lineage, name: str) -> int:
        context = lineage.store.get_context_by_type_and_name("pipeline_run", run_id)
        executions = lineage.store.get_executions_by_context(context.id) if context else []
        return max((e.id for e in executions if lineage.stage_of(e) == name), default=0)

    def launch(name: str) -> StageResult:
        seen.started(name)
        begin = time.monotonic()
        try:
            emulator.run_task(name, lambda fraction, text: seen.progressed(name, fraction, text))
        except BikePipelineError as error:
            with store.opened() as handle:
                execution_id = execution_of(Lineage(handle.store), name)
            seen.finished(StageResult(name, execution_id, "failed", time.monotonic() - begin, str(error)))
            raise
        seconds = time.monotonic() - begin
        with store.opened() as handle:
            lineage = Lineage(handle.store)
            execution_id = execution_of(lineage, name)
            outputs = lineage.outputs(execution_id)
        for artifact in (artifact for listed in outputs.values() for artifact in listed):
            artifact.uri = artifacts.path(artifact.uri)
        result = StageResult(name, execution_id, "done", seconds, outcome(name, outputs))
        seen.finished(result)
        return result

    try:
        results = run_in_order(emulator.upstream, launch, at_once=min(2, os.cpu_count() or 1))
    except BaseException:
        emulator.stop()
        raise
    with store.opened() as handle:
        return run_result(Lineage(handle.store), run_id, results, artifacts.path)
