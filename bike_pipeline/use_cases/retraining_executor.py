"""What the loop of continuous training has done: with rows, runs, versions and records, as people do it by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bike_pipeline.errors import ModelError, ServerError

if TYPE_CHECKING:
    from bike_pipeline.retraining.events import RecordedEvent, Run, State
    from bike_pipeline.retraining.loop import Judged
    from bike_pipeline.retraining.uploads import Uploads
    from bike_pipeline.settings import Settings


def uploads_of(settings: Settings) -> Uploads:
    """Return where uploads wait for their run."""
    from bike_pipeline.retraining.uploads import Uploads

    return Uploads(settings.retraining_path / "uploads")


class PipelineExecutor:
    """Does for the loop what people do with `data ingest`, `run` and `promote`; see `retraining.loop.Executor`."""

    def __init__(self, settings: Settings, finished: Callable[[str, str], None] = lambda _stage, _state: None) -> None:
        """Work with these settings; `finished` is called with the name and the state of each stage that ends."""
        self._settings, self._finished, self._uploads = settings, finished, uploads_of(settings)

    def ingest(self, event: RecordedEvent, before_write: Callable[[], None]) -> Mapping[str, Any]:
        from bike_pipeline.use_cases.data import ingest

        # The gate judges the newest span: a week is too little of one, and of several only the last would be judged.
        least = sum(self._settings.gate.min_rows.values())
        upload = self._uploads.check(event.event)
        version = ingest(self._settings, upload, least_rows=least, before_write=before_write).version
        return {"span": version.span, "version": version.version, "rows": version.manifest.rows.total}

    def train(self, run: Run, trained: Callable[[], None]) -> Judged:
        from bike_pipeline.retraining.loop import Judged
        from bike_pipeline.stages import Stage
        from bike_pipeline.use_cases.retraining_run import run_apart

        def finished(stage: str, state: str) -> None:
            self._finished(stage, state)
            if stage == Stage.TRAINER and state != "failed":
                trained()

        # What it pushes is promoted here, after that is in the ledger.
        promotion = self._settings.serving.promotion.model_copy(update={"automatic": False})
        serving = self._settings.serving.model_copy(update={"promotion": promotion})
        settings = self._settings.model_copy(update={"serving": serving})
        runner = settings.retraining.runner
        made = (
            self._in_cluster(settings, run, finished) if runner == "kubeflow" else run_apart(settings, runner, finished)
        )
        facts = {"cpu_seconds": made["cpu_seconds"]}
        return Judged(made["run_id"], made["pushed_version"], made["why"], facts)

    def _in_cluster(self, settings: Settings, run: Run, finished: Callable[[str, str], None]) -> dict[str, Any]:
        """Run in a cluster; a run that was submitted before this process took over is waited for, not begun again.

        Its name tells of it where the process died before it wrote down that it had submitted one.
        """
        from datetime import UTC, datetime

        from bike_pipeline.use_cases.retraining import open_ledger
        from bike_pipeline.use_cases.retraining_run import run_in_cluster

        ledger, name = open_ledger(settings), "submitted"
        known = ledger.control(name) or {}

        def begin(run_id: str) -> None:
            ledger.set_control(name, {"run": run.number, "run_id": run_id})

        claimed = datetime.fromtimestamp(run.claimed_at, UTC)
        called = f"{settings.pipeline_name} retraining {run.number} {claimed:%Y-%m-%d %H:%M:%S.%f}"
        begun = known["run_id"] if known.get("run") == run.number else ""
        return run_in_cluster(settings, called, begun, begin, finished)

    def ingested_versions(self, events: Sequence[RecordedEvent]) -> list[tuple[int, int]]:
        from bike_pipeline.use_cases.data import versions

        if not events:
            return []
        uploads = {str(Path(one.event.upload).absolute()) for one in events}
        found = (one for one in versions(self._settings) if one.manifest.source.location in uploads)
        return [(one.span, one.version) for one in found]

    def withdraw(self, span: int, version: int, why: str) -> None:
        from bike_pipeline.use_cases.data import withdraw

        if (span, version) not in _learnt_from(self._settings):
            withdraw(self._settings, span, version, why)

    def promote(self, run: Run, version: int) -> str:
        from bike_pipeline.model_registry import ModelRegistry
        from bike_pipeline.model_registry.deployment import REFUSED
        from bike_pipeline.rollout.delivery.position import position_of
        from bike_pipeline.rollout.promotion import RolloutTargets, after_push

        path = self._settings.serving_path
        targets = RolloutTargets.of(self._settings)
        try:
            why_not = after_push(path, version, targets, f"run {run.number}: {run.reason}")
            at = position_of(ModelRegistry(path))
            if why_not and targets.promotion.automatic and not (at and at.version == version):
                raise ModelError(why_not, where=f"version {version}", fix=f"`bike-pipeline promote {version}`")
            return why_not
        except ServerError as error:
            deployment = ModelRegistry(path).deployment()
            if deployment is not None and deployment.status(version) == REFUSED:
                raise ModelError(error.what, where=error.where, fix=error.fix) from error
            raise

    def settled(self, version: int) -> tuple[State, str] | None:
        from bike_pipeline.model_registry import ModelRegistry
        from bike_pipeline.model_registry.deployment import STABLE
        from bike_pipeline.retraining.events import State

        changes = [c for c in ModelRegistry(self._settings.serving_path).history() if c.to_version == version]
        if promoted := [c for c in changes if (c.action, c.label) == ("promote", STABLE)]:
            return State.PROMOTED, f"version {version} was promoted by {promoted[0].who}: {promoted[0].reason}"
        aborted = [c for c in changes if c.action in ("shift", "abort")]
        if aborted and aborted[-1].action == "abort":
            return State.REFUSED, f"the rollout of version {version} was ended: {aborted[-1].reason}"
        return None

    def ended(self, run: Run, events: Sequence[RecordedEvent]) -> None:
        from bike_pipeline.retraining.events import State

        _record(self._settings, run, events)
        for one in events:
            # What was refused or failed can be tried again.
            if one.state is State.PROMOTED:
                self._uploads.drop(one.event)


def _record(settings: Settings, run: Run, events: Sequence[RecordedEvent]) -> None:
    """Put a run that has ended beside the pipeline's run; nothing while there is no store, since none ever ran."""
    from bike_pipeline.lineage.records.last_run import refuse_a_lost_store
    from bike_pipeline.lineage.store.retraining_runs import record_run
    from bike_pipeline.retraining.events import State, digest_of
    from bike_pipeline.use_cases.lineage import lineage_of

    refuse_a_lost_store(settings)
    if settings.metadata.mysql is None and not settings.metadata_file.is_file():
        return
    found = {
        "trigger": ", ".join(sorted({one.event.trigger for one in events})),
        "reason": run.reason,
        "identities": json.dumps(run.events),
        "spans": json.dumps(run.facts.get("spans", [])),
        "ledger_run": str(run.number),
        "outcome": run.state,
        "why": run.why,
        "sha256": digest_of(str(settings.retraining_path), str(run.number), repr(run.claimed_at)),
    }
    record_run(lineage_of(settings), str(run.facts.get("run_id", "")), found, run.state is State.FAILED)


def _learnt_from(settings: Settings) -> set[tuple[int, int]]:
    """Return the spans and versions that pushed models were trained on, which they may serve with."""
    from bike_pipeline.lineage.queries.evidence import window_of
    from bike_pipeline.use_cases.lineage import lineage_of

    lineage = lineage_of(settings)
    windows = (window_of(lineage.trained_on(push.model_id)) for push in lineage.pushes())
    return {(int(entry["span"]), int(entry["version"])) for window in windows for entry in window}
