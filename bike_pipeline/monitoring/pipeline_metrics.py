"""The pipeline as metrics: its newest run, its gates, and how fresh spans, labels and models are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bike_pipeline.lineage.queries.evidence import decisions_of
from bike_pipeline.monitoring.exposition import gauge

if TYPE_CHECKING:
    from prometheus_client import Metric

    from bike_pipeline.data.manifest import SpanVersion
    from bike_pipeline.lineage.store.entities import RunRecord
    from bike_pipeline.lineage.store.metadata_store import Lineage

_STATES = ("done", "failed", "interrupted", "running")
_GATE = ("kind", "metric", "slicing", "slice", "binding")


def of_pipeline(lineage: Lineage, serving_path: str, newest: SpanVersion | None) -> Iterator[Metric]:
    """Yield what is on record of runs, gates, spans and models.

    Args:
        lineage: the metadata store.
        serving_path: where versions are pushed to; empty where that is not on this machine.
        newest: the newest span; None if there is none.
    """
    yield from _of_runs(lineage.runs())
    yield from _of_gates(lineage)
    if newest is not None:
        yield gauge("bike_span_newest", "Number of the newest span.", (), [((), newest.span)])
        yield _moment("bike_span_created", "When it was ingested.", newest.manifest.created_at)
        # Hours of the data are local and carry no zone.
        last_hour = newest.manifest.last.replace(tzinfo=UTC)
        yield _moment("bike_span_last_hour", "Its last hour, local, as if it were UTC.", last_hour)
    serving = lineage.serving_now(serving_path) if serving_path else lineage.serving_model()
    if serving is not None:
        version = ((serving.version,), 1.0)
        yield gauge("bike_promoted_version_info", "1 for the version that is promoted.", ("version",), [version])
        yield _moment("bike_promoted_version_pushed", "When it was pushed.", serving.pushed_at)
        if serving.feedback:
            last = datetime.fromisoformat(serving.feedback["labels"]["last"]).replace(tzinfo=UTC)
            yield _moment("bike_feedback_last_label", "Its newest label, local, as if it were UTC.", last)


def _moment(name: str, text: str, at: datetime) -> Metric:
    return gauge(f"{name}_timestamp_seconds", text, (), [((), at.timestamp())])


def _of_runs(runs: Sequence[RunRecord]) -> Iterator[Metric]:
    states = [run.state for run in runs]
    yield gauge(
        "bike_pipeline_runs", "Runs on record by state.", ("state",),
        [((state,), states.count(state)) for state in _STATES],
    )  # fmt: skip
    if not runs:
        return
    yield gauge(
        "bike_pipeline_run_state", "1 for the state of the newest run.", ("state",),
        [((state,), state == runs[-1].state) for state in _STATES],
    )  # fmt: skip
    yield _moment("bike_pipeline_run_started", "When the newest run began.", runs[-1].started)
    # What came from the cache took no time that tells anything.
    seconds = {stage.name: stage.seconds for run in runs for stage in run.stages if stage.state == "done"}
    yield gauge(
        "bike_pipeline_stage_seconds", "How long a stage took when it last worked.", ("stage",),
        [((stage,), took) for stage, took in seconds.items()],
    )  # fmt: skip


def _of_gates(lineage: Lineage) -> Iterator[Metric]:
    models = lineage.artifacts("Model")
    evaluated = ((model, found) for model in reversed(models) if (found := lineage.evaluation(model.id, False)))
    newest = next(evaluated, None)
    if newest is None:
        return
    model, (evaluation, blessed) = newest
    yield gauge("bike_model_blessed", "Whether the newest evaluated model is blessed.", (), [((), blessed)])
    yield gauge(
        "bike_model_trained_timestamp_seconds", "When it was trained.", (),
        [((), model.create_time_since_epoch / 1000)],
    )  # fmt: skip
    report = decisions_of(evaluation)
    # Where the evaluation lies in a bucket and an older release recorded none, there are none to tell.
    decisions = report["decisions"] if report else ()
    yield gauge(
        "bike_gate_passed", "Whether it passed a gate.", _GATE, [(_gate(one), one["passed"]) for one in decisions]
    )
    yield gauge(
        "bike_gate_value", "What a gate measured.", _GATE,
        [(_gate(one), one["value"]) for one in decisions if one["value"] is not None],
    )  # fmt: skip


def _gate(decision: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(decision[name]).lower() if name == "binding" else str(decision[name]) for name in _GATE)
