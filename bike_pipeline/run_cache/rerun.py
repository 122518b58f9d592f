"""Answers a run from the one before where nothing has changed, and keeps what the next one needs to know that."""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bike_pipeline.errors import BikePipelineError
from bike_pipeline.lineage.records.last_run import last_run, record_last_run
from bike_pipeline.run_cache import fingerprint
from bike_pipeline.run_events import RunObserver, RunResult
from bike_pipeline.settings import Settings

if TYPE_CHECKING:
    from bike_pipeline.lineage.store.metadata_store import Lineage

# What a run keeps for the next one, as JSON.
_PARTS, _DRIVEN = "parts", "driver_properties"


def new_run_id() -> str:
    """Return a name for a run: the time to the second, and a few random digits."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"


class Rerun:
    """One run, from the point of view of whether it has anything to do. The workspace's lock is held all the while."""

    def __init__(
        self, settings: Settings, enable_cache: bool, accept_baseline_reset: bool, runner: str = "local"
    ) -> None:
        self._runner = runner
        self._settings = settings
        # A warm start depends on what serves, so it trains again each time; the two options are for one run only.
        ordinary = enable_cache and not accept_baseline_reset and not settings.training.warm_start
        self._inputs = fingerprint.inputs_of(settings) if ordinary else None

    def answer(self, observer: RunObserver) -> RunResult | None:
        """Record this run as a repetition of the one before, and return its result; None where it must really run."""
        if self._inputs is None:
            return None
        if self._settings.metadata.mysql is None and not self._settings.metadata_file.is_file():
            return None
        import logging

        # MLMD says on every query that it falls back to plain SQL; that is its normal way of working.
        logging.getLogger("absl").setLevel(logging.ERROR)
        from bike_pipeline.lineage.store.connection import StoreError, open_at
        from bike_pipeline.lineage.store.metadata_store import Lineage

        address = self._settings.metadata_address
        lineage = Lineage(open_at(address, create=self._settings.metadata.mysql is not None))
        try:
            return self._answer(lineage, observer)
        except (StoreError, BikePipelineError, OSError, ValueError, LookupError, TypeError) as error:
            # Whatever is odd about the records is for the ordinary way to meet.
            _log_line(f"not answered from the run before: {type(error).__name__}: {error}")
            return None

    def _answer(self, lineage: Lineage, observer: RunObserver) -> RunResult | None:
        from bike_pipeline.lineage.queries import run_results
        from bike_pipeline.lineage.records.run_record import record_run, source_of_this_run

        # Other workspaces may write to the same store.
        before, text = run_results.previous_run(lineage, last_run(self._settings.workspace_path))
        if text is None:
            _log_line(f"run {before} left no record to compare with")
            return None
        kept = json.loads(text)
        now = {**(self._inputs or {}), "serving": self._serving(lineage, before)}
        changed = [part for part in sorted({*now, *kept[_PARTS]}) if now.get(part) != kept[_PARTS].get(part)]
        if changed:
            _log_line(f"changed since run {before}: {', '.join(changed)}")
            return None
        stages = run_results.recorded_stages(lineage, before, kept[_DRIVEN])
        if missing := run_results.missing_output(lineage, stages):
            _log_line(f"an output of run {before} is gone or changed: {missing}")
            return None
        # All that can be odd about the earlier run shows before anything is recorded.
        repeated = run_results.cached_result(lineage, before, stages)
        run_id = new_run_id()
        record_run(lineage.store, source_of_this_run(self._settings, run_id, self._runner))
        record_last_run(self._settings.workspace_path, run_id)
        observer.planned([stage.name for stage in stages])
        results = []
        for stage, said in zip(stages, repeated.stages, strict=True):
            began = time.monotonic()
            observer.started(stage.name)
            execution_id = run_results.record_cached_stage(lineage, stage, run_id)
            results.append(replace(said, execution_id=execution_id, seconds=time.monotonic() - began))
            observer.finished(results[-1])
        result = replace(repeated, run_id=run_id, stages=tuple(results))
        self._keep(lineage, run_id, {})
        _log_line(f"nothing has changed since run {before}; recorded as run {run_id}")
        return result

    def keep(self, lineage: Lineage, run_id: str, parameters: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep what this run depended on, at its end, where all of it ended well and the next one could repeat it.

        Args:
            lineage: the store that holds the run.
            run_id: its name.
            parameters: MLMD value by name of every parameter that the definition gives each stage; what an
                execution holds beyond that comes from its driver.
        """
        if self._inputs is None:
            return
        if fingerprint.inputs_of(self._settings) != self._inputs:
            _log_line("the run's inputs were changed while it ran; the next one looks at every stage")
            return
        from bike_pipeline.lineage.queries.run_results import driven_properties
        from bike_pipeline.lineage.store.connection import StoreError

        try:
            driven = driven_properties(lineage, run_id, parameters)
            if driven is not None:
                self._keep(lineage, run_id, driven)
        except (StoreError, BikePipelineError, OSError, LookupError) as error:
            # The run itself has ended well; without the record the next one only takes longer.
            _log_line(f"nothing kept for the next run: {type(error).__name__}: {error}")

    def _keep(self, lineage: Lineage, run_id: str, driven: Mapping[str, list[str]]) -> None:
        from bike_pipeline.lineage.queries.run_results import keep_cache_key

        serving = self._serving(lineage, run_id)
        if serving:
            record = {_PARTS: {**(self._inputs or {}), "serving": serving}, _DRIVEN: driven}
            keep_cache_key(lineage, run_id, json.dumps(record, sort_keys=True))

    def _serving(self, lineage: Lineage, run_id: str) -> str:
        """Return in words what serves and what became of its pushes; "" where that is not the model of this run."""
        from bike_pipeline.lineage.queries.run_results import trained_models
        from bike_pipeline.model_registry import ModelRegistry, is_intact

        path = self._settings.serving_path
        serving = lineage.serving_now(path)
        if serving is None or not is_intact(serving.destination, serving.fingerprint, serving.exports_fingerprint):
            return ""
        if trained_models(lineage, run_id) != [serving.model_id]:
            return ""
        pushes = [
            (
                push.version,
                push.destination,
                is_intact(push.destination, push.fingerprint, push.exports_fingerprint),
            )
            for push in lineage.pushes()
            if push.model_id == serving.model_id
        ]
        # Where the model was trained is a place, and the workspace may have been moved since.
        registry = ModelRegistry(path)
        record = {**(registry.push_record(serving.version) or {}), "model_uri": ""}
        signed = registry.signature_sha256(serving.version)
        return fingerprint.placeless(self._settings, registry.versions(), serving.version, record, signed, pushes)


def _log_line(text: str) -> None:
    # Standard error is the run's log file.
    sys.stderr.write(f"re-run: {text}\n")
