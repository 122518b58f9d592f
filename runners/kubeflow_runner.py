"""The Kubeflow runner: compiles the pipeline for a cluster, and runs what it compiled on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bike_pipeline.errors import ConfigurationError
from bike_pipeline.run_events import RunObserver, RunResult
from bike_pipeline.runners.kubeflow.definition import Target
from bike_pipeline.settings import Settings

if TYPE_CHECKING:
    from bike_pipeline.modeling.train_worker import TrainingJob


class KubeflowRunner:
    """Compiles for Kubeflow Pipelines and Vertex AI; runs the compiled spec without a cluster where asked to."""

    name = "kubeflow"

    def __init__(self, settings: Settings, observer: RunObserver, wait: bool = False, local: bool = False) -> None:
        self._settings = settings
        self._observer = observer
        self._wait = wait
        self._local = local

    @staticmethod
    def compile(settings: Settings, target: Target = "kubeflow", output: Path | None = None) -> Path:
        """Write the compiled pipeline and return the file; see `compile_pipeline`."""
        from bike_pipeline.runners.kubeflow.compiler import compile_pipeline

        return compile_pipeline(settings, target, output)

    @staticmethod
    def train_job(settings: Settings, job: TrainingJob, name: str) -> str:
        """Return the manifest of a multi-worker training for Kubeflow Trainer; see `train_job`."""
        from bike_pipeline.runners.kubeflow.trainjob import train_job

        return train_job(settings, job, name)

    def run(self, enable_cache: bool = True, accept_baseline_reset: bool = False) -> RunResult:
        """Run the compiled spec on this machine."""
        if not self._local:
            raise ConfigurationError(
                "a run in a cluster is submitted, not run from here",
                where="--runner kubeflow",
                fix="`bike-pipeline submit` sends it to Kubeflow Pipelines; add --local to run the compiled spec here",
            )
        from bike_pipeline.runners.kubeflow.local_run import run_compiled
        from bike_pipeline.runners.pipeline_run import workspace_lock
        from bike_pipeline.runners.scratch import scratch

        workspace = self._settings.workspace_path
        with workspace_lock(workspace, self._wait), scratch(workspace):
            return run_compiled(self._settings, self._observer, accept_baseline_reset)
