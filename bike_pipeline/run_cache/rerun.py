"""Answers a run from the one before where nothing has changed, and keeps what the next one needs to know that."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import sysconfig
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bike_pipeline.errors import BikePipelineError
from bike_pipeline.lineage.records.last_run import last_run, record_last_run
from bike_pipeline.run_events import RunObserver, RunResult
from bike_pipeline.settings import PROJECT_ROOT, Settings
from bike_pipeline.source_hash import PACKAGE_ROOT, tree_hash

if TYPE_CHECKING:
    from bike_pipeline.lineage.store.metadata_store import Lineage

# What a run keeps for the next one, as JSON.
_PARTS, _DRIVEN = "parts", "driver_properties"


def new_run_id() -> str:
    """Return a name for a run: the time to the second, and a few random digits."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"


def inputs_of(settings: Settings, package: Path = PACKAGE_ROOT) -> dict[str, str] | None:
    """Return the hashes of what a run would read now; None where that cannot be told, so that nothing is unchanged.

    They are those of the "settings" (without Beam's flags and what is tracked, which change no result) with the places
    that follow from them, relative to the workspace and this checkout, which may be moved; of the "source" of this
    `package`, the "runners", the "environment" (the interpreter and every installed distribution), the "schema", and
    the "window" (the spans, versions and content hashes that ExampleGen would read, and their files hold).
    """
    from bike_pipeline.data.spans import SpanStore
    from bike_pipeline.data.window import choose

    try:
        store = SpanStore(settings.store_uri)
        # Where the window begins follows from the settings and the newest version.
        window, _ = choose(store, settings.data.window.spans, settings.data.window.days)
        for entry in window:
            store.check_files(entry.span, entry.version)
        return {
            "settings": _hash(
                _placeless(
                    settings,
                    settings.model_dump(mode="json", exclude={"beam", "tracking", "workspace"}),
                    settings.pipeline_root,
                    settings.store_uri,
                    settings.serving_path,
                    str(settings.schema_path),
                )
            ),
            "source": tree_hash(package),
            # In a checkout this folder is a link, which a look through the package does not follow.
            "runners": tree_hash(package / "runners"),
            "environment": _hash(sys.version, _distributions()),
            "schema": hashlib.sha256(settings.schema_path.read_bytes()).hexdigest(),
            "window": _hash([version.identity for version in window]),
        }
    except (BikePipelineError, OSError):
        # The ordinary way meets the same obstacle, and says what it is and how to mend it.
        return None


def _placeless(settings: Settings, *values: Any) -> str:
    """Return values as JSON in which neither the workspace's place nor that of this checkout stands."""
    text = json.dumps(values, sort_keys=True)
    for place, mark in ((settings.workspace_path, "workspace:/"), (PROJECT_ROOT, "project:/")):
        text = text.replace(json.dumps(f"{place}/")[1:-1], mark)
    return text


def _hash(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _distributions() -> list[str]:
    """Return name and version of every installed distribution; their folders' names say both."""
    places = {Path(sysconfig.get_paths()[kind]) for kind in ("purelib", "platlib")}
    return sorted({found.name for place in places for found in place.glob("*.dist-info")})


class Rerun:
    """One run, from the point of view of whether it has anything to do. The workspace's lock is held all the while."""

    def __init__(
        self, settings: Settings, enable_cache: bool, accept_baseline_reset: bool, runner: str = "local"
    ) -> None:
        self._runner = runner
        self._settings = settings
        # A warm start depends on what serves, so it trains again each time; the two options are for one run only.
        ordinary = enable_cache and not accept_baseline_reset and not settings.training.warm_start
        self._inputs = inputs_of(settings) if ordinary else None

    def answer(self, observer: RunObserver) -> RunResult | None:
        """Record this run as a repetition of the one before, and return its result; None where it must really run."""
        if self._inputs is None:
            return None
        if self._settings.metadata.mysql is None and not self._settings.metadata_file.is_file():
            return None
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
        if inputs_of(self._settings) != self._inputs:
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
            (p.version, p.destination, is_intact(p.destination, p.fingerprint, p.exports_fingerprint))
            for p in lineage.pushes()
            if p.model_id == serving.model_id
        ]
        # Where the model was trained is a place, and the workspace may have been moved since.
        registry = ModelRegistry(path)
        record = {**(registry.push_record(serving.version) or {}), "model_uri": ""}
        signed = registry.signature_sha256(serving.version)
        return _placeless(self._settings, registry.versions(), serving.version, record, signed, pushes)


def _log_line(text: str) -> None:
    # Standard error is the run's log file.
    sys.stderr.write(f"re-run: {text}\n")
