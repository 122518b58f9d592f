"""Evidence from Prometheus, for tracks whose logs are elsewhere: what the servers of the tracks told it.

Metrics know neither hours nor requests, so that answers are compared by their distribution, and pairs there are none.
"""

from __future__ import annotations

import json
import math
import urllib.parse
import urllib.request
from datetime import datetime

from bike_pipeline.errors import MonitoringError, first_words
from bike_pipeline.model_registry.deployment import STABLE
from bike_pipeline.rollout.delivery.evidence import FAULTS, Evidence, Latency, Share, Tracked, TrackEvidence
from bike_pipeline.settings.rollout import RolloutSettings

_ANSWERED = '{{__name__=~"bike_answered_(rentals|probability)_bucket",model_name="{model}",version="{version}"}}'


class PrometheusEvidence:
    """Reads evidence by the HTTP API of Prometheus (prometheus.io/docs/prometheus/latest/querying/api)."""

    def __init__(self, settings: RolloutSettings, model: str) -> None:
        """Prepare to ask the address of the settings about a model."""
        self._settings, self._where, self._model = settings, settings.evidence, model

    def read(self, tracked: Tracked, first: datetime, last: datetime) -> Evidence:
        """Return what the metrics tell of a stretch of time; what is no number there stays none.

        Raises:
            MonitoringError: Prometheus does not answer.
        """
        span = max(round((last - first).total_seconds()), 1), last
        candidate, answered = self._track(tracked.label, tracked.version, span)
        stable, usual = self._track(STABLE, tracked.stable, span)
        return Evidence(candidate, stable, different=self._different(answered, usual))

    def _track(self, label: str, version: int, span: tuple[int, datetime]) -> tuple[TrackEvidence, Latency]:
        model = f'model_name="{self._model}"'
        which = f'{model},{self._where.track_label}="{label}"'
        count = ":tensorflow:serving:request_count"
        faults = "|".join(FAULTS)
        slow = self._buckets(f":tensorflow:serving:request_latency_bucket{{{which}}}", span)
        answered = self._buckets(_ANSWERED.format(model=self._model, version=version), span)
        nothing = self._sum(f'bike_answers_without_number_total{{{model},version="{version}"}}', span)
        found = TrackEvidence(
            requests=self._sum(f"{count}{{{which}}}", span),
            errors=self._sum(f'{count}{{{which},status=~"{faults}"}}', span),
            answers=answered.rows + nothing,
            not_finite=nothing,
            client_errors=self._sum(f'{count}{{{which},status!~"OK|{faults}"}}', span),
            # TF Serving's buckets are microseconds.
            latency=Latency([bound / 1e3 for bound in slow.bounds], slow.counts),
        )
        return found, answered

    def _different(self, ours: Latency, theirs: Latency) -> Share | None:
        """Return how many answers would have to lie elsewhere for the distributions to be the same.

        That is the largest difference of their cumulative shares, less what chance may make of it (Massart 1990, doi
        10.1214/aop/1176990746).
        """
        if not (0 < ours.rows * theirs.rows < math.inf) or list(ours.bounds) != list(theirs.bounds):
            return None
        largest = max(abs(ours.above(b).bad / ours.rows - theirs.above(b).bad / theirs.rows) for b in ours.bounds)
        chance = sum(math.sqrt(math.log(2 / self._settings.alpha) / (2 * one.rows)) for one in (ours, theirs))
        return Share(round(max(largest - chance, 0.0) * ours.rows), ours.rows)

    def _sum(self, selector: str, span: tuple[int, datetime]) -> float:
        return sum(value for _, value in self._asked(f"sum(increase({selector}[{span[0]}s]))", span[1]))

    def _buckets(self, selector: str, span: tuple[int, datetime]) -> Latency:
        found = self._asked(f"sum by (le) (increase({selector}[{span[0]}s]))", span[1])
        upto = sorted((float(labels["le"]), value) for labels, value in found)
        counts = [now - before for (_, now), before in zip(upto, [0.0, *(n for _, n in upto)], strict=False)]
        return Latency([bound for bound, _ in upto if math.isfinite(bound)], counts)

    def _asked(self, query: str, at: datetime) -> list[tuple[dict[str, str], float]]:
        words = urllib.parse.urlencode({"query": query, "time": at.timestamp()})
        address = self._where.prometheus.rstrip("/")
        try:
            request = urllib.request.Request(f"{address}/api/v1/query?{words}")  # noqa: S310 - the settings say http
            with urllib.request.urlopen(request, timeout=self._where.timeout_seconds) as answer:  # noqa: S310
                return [(one["metric"], _count(one["value"][1])) for one in json.load(answer)["data"]["result"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            what = f"Prometheus does not answer ({first_words(error)})"
            raise MonitoringError(what, where=address, fix="check rollout.evidence.prometheus") from None


def _count(text: str) -> float:
    # What is increased between two scrapes is extrapolated, and no whole number.
    value = float(text)
    return round(value) if math.isfinite(value) else value
