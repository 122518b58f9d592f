"""The Beam runner: every Beam-powered stage on the engine that the settings name, independent stages side by side."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from bike_pipeline.run_events import RunObserver, RunResult
from bike_pipeline.runners.beam import flags, job_server, preflight
from bike_pipeline.runners.pipeline_run import run_pipeline, workspace_lock
from bike_pipeline.settings import Settings

if TYPE_CHECKING:
    from bike_pipeline.runners.stage_launcher import MakeBeamPipeline


class BeamRunner:
    """Runs the pipeline from this machine, its Beam pipelines on `beam.engine`."""

    name = "beam"

    def __init__(self, settings: Settings, observer: RunObserver, wait: bool = False) -> None:
        self._settings = settings
        self._observer = observer
        self._wait = wait

    def run(self, enable_cache: bool = True, accept_baseline_reset: bool = False) -> RunResult:
        """Run the pipeline to its end."""
        beam = self._settings.beam
        preflight.check(self._settings)
        with (
            workspace_lock(self._settings.workspace_path, self._wait),
            beam_pipelines(self._settings) as make_beam_pipeline,
        ):
            return run_pipeline(
                self._settings,
                self._observer,
                make_beam_pipeline,
                # Beam packs the code from a setup file in another working directory, which the whole process then has.
                at_once=1 if beam.workers.setup_file else beam.stages_at_once,
                runner=self.name,
                pipeline_root=beam.pipeline_root,
                enable_cache=enable_cache,
                accept_baseline_reset=accept_baseline_reset,
            )


@contextlib.contextmanager
def beam_pipelines(settings: Settings) -> Iterator[MakeBeamPipeline]:
    """Have what makes Beam pipelines for the engine of the settings.

    A job server of its own is started for the first pipeline, since a run that is answered from the cache needs none,
    and ends with the block. What keeps it from starting is raised where that pipeline is made: MissingExtraError,
    ConfigurationError or StageError.
    """
    beam = settings.beam
    turn = threading.Lock()
    endpoints: list[str] = []
    with contextlib.ExitStack() as stack:

        def endpoint() -> str:
            with turn:
                if not endpoints:
                    endpoints.append(stack.enter_context(job_server.running(beam, beam.engine, settings.logs_path)))
                return endpoints[0]

        def make(stage: str) -> Any:
            import apache_beam

            address = endpoint() if beam.engine in ("flink", "spark", "portable") else ""
            # Dataflow refuses a second job of a name while the first one runs, and knows small letters only.
            job_name = f"{settings.pipeline_name}-{stage.lower()}-{uuid.uuid4().hex[:8]}"
            return apache_beam.Pipeline(argv=flags.engine_flags(beam, address, job_name))

        yield make
