"""`bike-pipeline run --runner kubeflow --local`: compile, then run what was compiled, on this machine."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from bike_pipeline import extras
from bike_pipeline.errors import BikePipelineError
from bike_pipeline.run_events import RunObserver, RunResult, StageResult
from bike_pipeline.settings import PROJECT_ROOT, Settings
from bike_pipeline.settings.kubeflow import ClusterMetadata, Volume

if TYPE_CHECKING:
    from bike_pipeline.lineage.store.metadata_store import Artifact, Lineage
    from bike_pipeline.runners.kubeflow.emulator import Emulator
    from bike_pipeline.runners.kubeflow.mounts import Mounts
    from bike_pipeline.runners.kubeflow.record import Store

RUNNER = "kubeflow --local"


def on_this_machine(settings: Settings) -> Settings:
    """Return the settings with the workspace in the place of the cluster's volumes and metadata store.

    They are settings like any other: what validates them elsewhere accepts them.
    """
    workspace = str(settings.workspace_path)
    serving, store = os.path.dirname(settings.serving_path), settings.store_uri
    elsewhere = [path for path in (serving, store) if "://" not in path and not path.startswith(f"{workspace}/")]
    mounts = [workspace, *sorted({os.path.dirname(path) for path in elsewhere})]
    changes = {
        "project_folder": str(PROJECT_ROOT),
        "volumes": tuple(Volume(claim=f"folder-{n}", mount_path=mount) for n, mount in enumerate(mounts)),
        "span_store": store,
        "serving_folder": serving,
        "metadata": ClusterMetadata(sqlite_file=str(settings.metadata_file)),
        "artifact_folder": f"{workspace}/kubeflow/volume" if settings.kubeflow.artifact_folder else "",
    }
    return settings.model_copy(update={"kubeflow": settings.kubeflow.model_copy(update=changes)})


def run_compiled(settings: Settings, observer: RunObserver, accept_baseline_reset: bool = False) -> RunResult:
    """Compile the pipeline and run the compiled spec; the caller holds the workspace."""
    extras.require("kubeflow", "running the compiled spec")
    from bike_pipeline.lineage.queries.run_results import run_result
    from bike_pipeline.lineage.records.last_run import last_run, record_last_run, refuse_a_lost_store
    from bike_pipeline.lineage.records.run_record import record_run, source_of_this_run
    from bike_pipeline.lineage.store.metadata_store import Lineage
    from bike_pipeline.lineage.store.writing import close_interrupted
    from bike_pipeline.runners.kubeflow.compiler import compile_pipeline
    from bike_pipeline.runners.kubeflow.emulator import Emulator
    from bike_pipeline.runners.kubeflow.mounts import Mounts
    from bike_pipeline.runners.kubeflow.record import Store
    from bike_pipeline.runners.scheduling import run_in_order

    refuse_a_lost_store(settings, accept_baseline_reset)
    folder = settings.workspace_path / "kubeflow"
    run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
    kubeflow = on_this_machine(settings)
    file = compile_pipeline(kubeflow, "kubeflow", folder / "runs" / f"{run_id}.yaml")
    parameters = {"accept_baseline_reset": int(accept_baseline_reset)}
    root = kubeflow.kubeflow.pipeline_root
    emulator = Emulator(file, folder, run_id, root, parameters, _signing_key(settings))
    artifacts = Mounts(emulator.store.root, kubeflow.kubeflow.artifact_folder)
    store = Store(kubeflow.kubeflow.metadata.address)
    tasks = _Tasks(emulator, store, artifacts, observer, run_id)
    observer.planned(list(emulator.upstream))
    with store.opened() as handle:
        close_interrupted(Lineage(handle.store), last_run(folder))
        # The first record of a run stays, and this one has the settings as they were given.
        record_run(handle.store, source_of_this_run(settings, run_id, RUNNER))
    record_last_run(folder, run_id)
    try:
        results = run_in_order(emulator.upstream, tasks.launch, at_once=min(2, os.cpu_count() or 1))
    except BaseException:
        emulator.stop()
        with store.opened() as handle:
            close_interrupted(Lineage(handle.store), run_id)
        raise
    finally:
        shutil.rmtree(folder / "tasks", ignore_errors=True)
    with store.opened() as handle:
        return run_result(Lineage(handle.store), run_id, results, artifacts.path)


def _signing_key(settings: Settings) -> dict[str, str]:
    """Return the variable that names the signing key, as a secret would set it in a cluster."""
    from bike_pipeline.model_registry import signing

    signing.use(settings)
    signing.signer()
    given = {signing.KEY_VARIABLE, signing.KEY_FILE_VARIABLE} & set(os.environ)
    return {} if given else {signing.KEY_FILE_VARIABLE: str(settings.signing_key_file)}


class _Tasks:
    """Runs tasks, from any thread, and tells what came out of them."""

    def __init__(self, emulator: Emulator, store: Store, artifacts: Mounts, observer: RunObserver, run_id: str) -> None:
        from bike_pipeline.runners.stage_launcher import SerialObserver

        self._emulator = emulator
        self._store = store
        self._artifacts = artifacts
        self._observer = SerialObserver(observer)
        self._run_id = run_id

    def launch(self, name: str) -> StageResult:
        """Run one task.

        Raises:
            BikePipelineError: it refused or failed.
        """
        from bike_pipeline.lineage.queries.run_results import stage_summary

        self._observer.started(name)
        begin = time.monotonic()
        try:
            self._emulator.run_task(name, lambda fraction, text: self._observer.progressed(name, fraction, text))
        except BikePipelineError as error:
            execution_id, _ = self._written(name)
            self._observer.finished(StageResult(name, execution_id, "failed", time.monotonic() - begin, str(error)))
            raise
        seconds = time.monotonic() - begin
        execution_id, outputs = self._written(name)
        result = StageResult(name, execution_id, "done", seconds, stage_summary(name, outputs))
        self._observer.finished(result)
        return result

    def _written(self, name: str) -> tuple[int, dict[str, list[Artifact]]]:
        """Return the execution that a task wrote down (0 where it came to none) and its outputs, seen from here."""
        from bike_pipeline.lineage.store.metadata_store import Lineage

        with self._store.opened() as handle:
            lineage = Lineage(handle.store)
            execution_id = self._execution_of(lineage, name)
            outputs = lineage.outputs(execution_id) if execution_id else {}
        for artifact in (artifact for listed in outputs.values() for artifact in listed):
            artifact.uri = self._artifacts.path(artifact.uri)
        return execution_id, outputs

    def _execution_of(self, lineage: Lineage, name: str) -> int:
        executions = lineage.executions_of(self._run_id)
        return max((execution.id for execution in executions if lineage.stage_of(execution) == name), default=0)
