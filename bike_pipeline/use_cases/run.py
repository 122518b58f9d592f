"""Run the pipeline: from the newest span to a blessed, pushed model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from bike_pipeline.errors import ConfigurationError
from bike_pipeline.run_events import RunObserver, RunResult

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings

# Third parties add runners as entry points of this group.
RUNNERS_GROUP = "bike_pipeline.runners"


class Runner(Protocol):
    """Where a run takes place; the package's own are in `bike_pipeline.runners`."""

    def __init__(self, settings: Settings, observer: RunObserver, wait: bool = False, **options: bool) -> None:
        """Prepare a run; `wait` for another one in the workspace instead of refusing; options are the runner's own."""

    def run(self, enable_cache: bool = True, accept_baseline_reset: bool = False) -> RunResult:
        """Run the pipeline to its end."""


@dataclass(frozen=True)
class CompletedRun(RunResult):
    """What a run came to, the version that serves after it, and what came of sending it to MLflow, in one line."""

    promoted_version: int | None
    tracking: str


def run(
    settings: Settings,
    *,
    runner: str = "local",
    observer: RunObserver | None = None,
    cache: bool = True,
    accept_baseline_reset: bool = False,
    wait: bool = False,
    local: bool = False,
) -> CompletedRun:
    """Run the pipeline on the newest span.

    A candidate that is not blessed is a result, not an error: its `pushed_version` is None.

    Args:
        settings: the settings of the run.
        runner: "local", "beam", "kubeflow", or one that a third party installed.
        observer: learns how the run goes.
        cache: answer stages from earlier runs if nothing changed.
        accept_baseline_reset: let a changed signature or metric set go uncompared, or a lost metadata store be begun
            anew, once.
        wait: wait for another run in this workspace instead of raising BusyError.
        local: with "kubeflow", run the compiled spec on this machine.

    Raises:
        DataGateError: the data gate refused the span.
        BikePipelineError: a stage failed, or the workspace is busy or cannot be written.
    """
    from bike_pipeline.model_registry import ModelRegistry
    from bike_pipeline.tracking.hooks import after_run

    if local and runner != "kubeflow":
        raise ConfigurationError("--local belongs to --runner kubeflow", where="--local", fix="leave one of them out")
    made = runner_class(runner)(settings, observer or RunObserver(), wait, **({"local": True} if local else {}))
    result = made.run(cache, accept_baseline_reset)
    # The records of other runners are not in the workspace's own store.
    tracking = after_run(settings, result.run_id) if runner in ("local", "beam") else ""
    return CompletedRun(
        **vars(result), promoted_version=ModelRegistry(settings.serving_path).serving(), tracking=tracking
    )


def runner_class(name: str) -> type[Runner]:
    """Return the runner of a name: one of ours, or an entry point of `RUNNERS_GROUP`."""
    match name:
        case "local":
            from bike_pipeline.runners.local_runner import LocalRunner

            return LocalRunner
        case "beam":
            from bike_pipeline.runners.beam_runner import BeamRunner

            return BeamRunner
        case "kubeflow":
            from bike_pipeline.runners.kubeflow_runner import KubeflowRunner

            return KubeflowRunner
    from importlib.metadata import entry_points

    installed = {point.name: point for point in entry_points(group=RUNNERS_GROUP)}
    if name not in installed:
        known = sorted({"local", "beam", "kubeflow", *installed})
        raise ConfigurationError(
            f"there is no runner '{name}'", where="--runner", fix=f"choose one of: {', '.join(known)}"
        )
    found: type[Runner] = installed[name].load()
    return found


@dataclass(frozen=True)
class IngestedHalf:
    """A half of the embedded data (1 is 2011, 2 is 2012) in the span store, and what was written for DVC, in a line."""

    number: int
    span: int
    version: int
    rows: int
    created: bool
    tracking: str


def ingest_demo(settings: Settings, half: Literal["first", "second"]) -> list[IngestedHalf]:
    """Ingest the first half of the embedded data, or both in their order; one that is there already is kept."""
    from bike_pipeline.data.embedded_dataset import split_demo
    from bike_pipeline.data.ingest import ingest
    from bike_pipeline.data.spans import SpanStore
    from bike_pipeline.tracking.hooks import after_ingest

    ingested = []
    halves = split_demo(settings.workspace_path / "uploads")
    for number, source in enumerate(halves[: 1 if half == "first" else 2], 1):
        result = ingest(settings, str(source))
        span, version = result.version.span, result.version.version
        note = after_ingest(settings, SpanStore(settings.store_uri), span, version)
        ingested.append(IngestedHalf(number, span, version, result.version.manifest.rows.total, result.created, note))
    return ingested
