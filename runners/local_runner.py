"""The local runner: every stage in this process, one after the other, with lineage in a SQLite file."""

from __future__ import annotations

from typing import Any

from bike_pipeline.run_events import RunObserver, RunResult
from bike_pipeline.runners.beam.flags import direct_flags
from bike_pipeline.runners.pipeline_run import run_pipeline, workspace_lock
from bike_pipeline.settings import Settings


class LocalRunner:
    """Runs the pipeline on this machine."""

    name = "local"

    def __init__(self, settings: Settings, observer: RunObserver, wait: bool = False) -> None:
        self._settings = settings
        self._observer = observer
        self._wait = wait

    def run(self, enable_cache: bool = True, accept_baseline_reset: bool = False) -> RunResult:
        """Run the pipeline to its end."""
        with workspace_lock(self._settings.workspace_path, self._wait):
            return run_pipeline(
                self._settings,
                self._observer,
                self._beam_pipeline,
                at_once=1,
                enable_cache=enable_cache,
                accept_baseline_reset=accept_baseline_reset,
            )

    def _beam_pipeline(self, _stage: str) -> Any:
        import apache_beam

        return apache_beam.Pipeline(argv=direct_flags(self._settings.beam))
