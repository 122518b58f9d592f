"""A version that takes over step by step: started, judged, approved, ended, and watched until it has."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Literal

from bike_pipeline.errors import BikePipelineError, ModelError, ServerError

if TYPE_CHECKING:
    from bike_pipeline.model_registry.deployment import Change
    from bike_pipeline.monitoring.observations import Columns
    from bike_pipeline.rollout.delivery.controller import Delivery, Look
    from bike_pipeline.rollout.delivery.evidence import EvidenceReader, Share, Tracked
    from bike_pipeline.rollout.delivery.log_evidence import Labelled
    from bike_pipeline.rollout.delivery.position import Position
    from bike_pipeline.rollout.delivery.safety import Safety
    from bike_pipeline.settings import Settings

Kind = Literal["canary", "shadow", "challenger"]
# Labels come by the hour; what they say is worked out anew after so long.
_LABELS_SECONDS = 60.0


@dataclass(frozen=True)
class RolloutStatus:
    """Where a rollout stands, and how safe its version seemed before it; None without a rollout."""

    look: Look
    safety: Safety | None


def start(settings: Settings, version: int, kind: Kind = "canary", reason: str = "") -> Change:
    """Validate a pushed version unless that was done, and give it its first share of the requests.

    Raises:
        ModelError: another rollout goes on, nothing is stable, or the version may not serve.
        ServerError: it does not pass its validation, or a server does not follow.
    """
    from bike_pipeline.model_registry import signing
    from bike_pipeline.rollout import promotion
    from bike_pipeline.rollout.delivery.controller import plan_of

    signing.use(settings)
    score = _safety(settings, reader_of(settings), version).score
    percent = plan_of(kind, settings.rollout, score)[0].percent
    targets = promotion.RolloutTargets.of(settings)
    why = f"{reason or 'a person started it'}; safety {score:.2f}"
    return promotion.start(settings.serving_path, version, kind, percent, targets, why)


def status(settings: Settings) -> RolloutStatus:
    """Return where the rollout stands and what its step comes to now; nothing is changed."""
    delivery, safety = _delivery(settings)
    look = delivery.look()
    return RolloutStatus(look, safety(look.position) if look.position else None)


def approve(settings: Settings, reason: str) -> Look:
    """Let a rollout go on that waits for a person.

    Raises:
        ModelError: it does not wait: its step is not sound, not judged yet, or needs no approval.
        ServerError: a server does not follow; the approval stands.
    """
    found = _delivery(settings)[0].step(reason)
    if found.problem:
        raise found.problem
    if found.change is None or found.change.action == "abort":
        raise ModelError(
            f"nothing waits for an approval: {found.verdict}: {found.reason}",
            where=settings.serving_path,
            fix="`bike-pipeline rollout status` shows the step",
        )
    return found


def abort(settings: Settings, reason: str) -> Change:
    """End a rollout: its version gets no more requests; tell the servers.

    Raises:
        ModelError: no version is being rolled out.
    """
    from bike_pipeline.model_registry import ModelRegistry
    from bike_pipeline.rollout.delivery.position import position_of
    from bike_pipeline.rollout.promotion import RolloutTargets, roll_out

    registry = ModelRegistry(settings.serving_path)
    position = position_of(registry)
    change = registry.abort(position.label, reason) if position else None
    if change is None:
        fix = "`bike-pipeline rollout start VERSION` begins one"
        raise ModelError("no version is being rolled out", where=settings.serving_path, fix=fix)
    roll_out(settings.serving_path, RolloutTargets.of(settings))
    return change


def watch(
    settings: Settings,
    *,
    once: bool = False,
    forever: bool = False,
    looked: Callable[[Look], None] = lambda _: None,
    stop: threading.Event | None = None,
) -> Look:
    """Judge and move the rollout again and again until it has ended, or `forever`; return the last look.

    It may be killed at any time and begun again: its state is in the promotion log. What cannot be read or told now is
    tried again, but not with `once`.

    Raises:
        ServerError: the version was rolled back.
    """
    from bike_pipeline.rollout.delivery.controller import Look
    from bike_pipeline.rollout.delivery.judging import Verdict

    delivery, ended = _delivery(settings)[0], stop or threading.Event()
    last: Look | None = None
    while True:
        try:
            found = delivery.step()
        except BikePipelineError as error:
            found = Look(None, Verdict.HOLD, str(error), problem=error)
        if once and found.problem:
            raise found.problem
        looked(found)
        last = found if found.change or not (last and last.change) else last
        moved = found.change.action if found.change else ""
        over = not found.problem and (found.position is None or moved in ("abort", "promote"))
        if once or (over and not forever) or ended.wait(settings.rollout.poll_seconds):
            break
    if last.change is not None and last.change.action == "abort":
        raise ServerError(
            f"version {last.change.from_version} was rolled back: {last.reason}",
            where=settings.serving_path,
            fix="`bike-pipeline history` tells all that happened",
        )
    return last


def _delivery(settings: Settings) -> tuple[Delivery, Callable[[Position], Safety]]:
    from bike_pipeline.model_registry import signing
    from bike_pipeline.rollout.delivery.controller import Delivery
    from bike_pipeline.rollout.promotion import RolloutTargets

    signing.use(settings)
    reader = reader_of(settings)

    @cache
    def of_version(version: int, _label: str) -> Safety:
        return _safety(settings, reader, version)

    def safety(position: Position) -> Safety:
        # By label: a canary that was a shadow has more evidence than it had then.
        return of_version(position.version, position.label)

    targets = RolloutTargets.of(settings)
    made = Delivery(settings.serving_path, targets, settings.rollout, reader, lambda at: safety(at).score)
    return made, safety


def reader_of(settings: Settings) -> EvidenceReader:
    """Return what reads the evidence: Prometheus where the settings name it, else the logs."""
    from bike_pipeline.rollout.delivery.log_evidence import LogEvidence
    from bike_pipeline.rollout.delivery.prometheus_evidence import PrometheusEvidence

    where, model = settings.rollout.evidence, settings.serving.model_name
    if where.prometheus:
        return PrometheusEvidence(settings.rollout, model)
    own = settings.request_log_path
    logs = [settings.workspace_path / f for f in where.request_logs] or [own, own.with_name(f"{own.name}-shadow")]
    access_log = settings.gateway_log_file
    return LogEvidence(access_log, logs, model, settings.rollout.prediction_tolerance, _labelled(settings))


def _labelled(settings: Settings) -> Callable[[Tracked, datetime, datetime], Labelled | None]:
    """Return what says how well the versions of a rollout did, by the monitor's observations and labels."""
    import numpy as np

    from bike_pipeline.rollout.delivery.evidence import Share
    from bike_pipeline.rollout.delivery.log_evidence import Labelled
    from bike_pipeline.use_cases.monitoring import observation_store

    names = ("hour", "version", "requested_at", "answer", "lower", "upper")
    found: Columns = {}
    read = -math.inf

    def labelled(tracked: Tracked, first: datetime, last: datetime) -> Labelled | None:
        nonlocal found, read
        if time.monotonic() - read >= _LABELS_SECONDS:
            found, read = observation_store(settings).columns(names=names), time.monotonic()
        at = found["requested_at"]
        bounds = [np.datetime64(moment.astimezone(UTC).replace(tzinfo=None), "ms") for moment in (first, last)]
        there = (at >= bounds[0]) & (at < bounds[1]) & np.isfinite(found["label"]) & np.isfinite(found["answer"])
        if not there.any():
            return None
        hours, label, version = (found[name][there] for name in ("hour", "label", "version"))
        errors = np.abs(found["answer"][there] - label)
        ours = version == tracked.version
        lower, upper = found["lower"][there], found["upper"][there]
        told = ours & np.isfinite(lower) & np.isfinite(upper)
        missed = Share(int((told & ((label < lower) | (label > upper))).sum()), int(told.sum()))
        theirs = version == tracked.stable
        both = sorted(set(hours[ours]) & set(hours[theirs]))
        means = [[float(errors[mask & (hours == hour)].mean()) for hour in both] for mask in (ours, theirs)]
        return Labelled(missed if missed.rows else None, [one - other for one, other in zip(*means, strict=True)])

    return labelled


def _safety(settings: Settings, reader: EvidenceReader, version: int) -> Safety:
    from bike_pipeline.model_registry import ModelRegistry, verification
    from bike_pipeline.rollout.delivery.safety import safety_of

    registry = ModelRegistry(settings.serving_path)
    evidence = (verification.evidence_of(registry.folder(version)) if version in registry.versions() else None) or {}
    findings = _findings(settings, str((evidence.get("model") or {}).get("run_id", "")))
    return safety_of(evidence.get("gates"), _shadow(reader, registry.history(), version), findings)


def _shadow(reader: EvidenceReader, changes: list[Change], version: int) -> Share | None:
    """Return how the answers of a version's last shadow agreed with those of the version that was stable then."""
    from bike_pipeline.model_registry.deployment import STABLE
    from bike_pipeline.rollout.delivery.evidence import Tracked
    from bike_pipeline.rollout.tracks import SHADOW

    first = last = None
    stable: int | None = None
    for change in changes:
        if change.label == STABLE and first is None:
            stable = change.to_version
        elif (change.action, change.label, change.to_version) == ("shift", SHADOW, version):
            first, last = first or change, None
        elif first is not None and change.to_version == version and last is None:
            last = change
    if first is None or stable is None:
        return None
    until = datetime.fromisoformat(last.at) if last else datetime.now(UTC)
    try:
        return reader.read(Tracked(SHADOW, version, stable), datetime.fromisoformat(first.at), until).different
    except BikePipelineError:
        return None


def _findings(settings: Settings, run_id: str) -> int | None:
    """Return how many findings the data gate had in a run; None if its report is not on record here."""
    from bike_pipeline.lineage.queries.evidence import findings_of
    from bike_pipeline.use_cases.lineage import lineage_of

    if not run_id or (settings.metadata.mysql is None and not settings.metadata_file.is_file()):
        return None
    try:
        lineage = lineage_of(settings)
        stages = next((run.stages for run in lineage.runs() if run.run_id == run_id), ())
        reports = [findings_of(lineage.outputs(stage.execution_id)) for stage in stages]
    except BikePipelineError:
        return None
    return next((len(report) for report in reports if report is not None), None)
