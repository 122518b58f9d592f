"""Evidence from the gateway's access log, which names the track, and from the request logs, which have the answers.

DuckDB reads the lines; one that is half written, or none of these logs, is passed over, and of equal ones one counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bike_pipeline.errors import MonitoringError, first_words
from bike_pipeline.model_registry.deployment import STABLE
from bike_pipeline.rollout.delivery.evidence import FAULTS, Evidence, Latency, Share, Tracked, TrackEvidence
from bike_pipeline.rollout.delivery.judging import ERROR, ERROR_SHARE, LATENCY
from bike_pipeline.rollout.tracks import SHADOW

if TYPE_CHECKING:
    import duckdb

# Rentals an hour below which a difference is measured against this number.
_FEW_RENTALS = 10.0
_MEMORY = "400MB"
_LINES = """
CREATE TABLE lines AS SELECT DISTINCT TRY_CAST("@timestamp" AS TIMESTAMP) AS began, http->>'$.request.id' AS id,
    event->>'dataset' AS dataset, TRY_CAST(event->>'duration' AS DOUBLE) / 1e6 AS ms, url->>'path' AS path,
    event, http, bike, error
FROM read_json($files, format = 'newline_delimited', ignore_errors = true, columns = {'@timestamp': 'VARCHAR',
    'event': 'JSON', 'http': 'JSON', 'bike': 'JSON', 'error': 'JSON', 'url': 'JSON'})
WHERE began >= $first AND began < $last
"""
# What the gateway refuses by itself, such as a request without a key, no version is to blame for.
_REQUESTS = f"""
CREATE TABLE requests AS SELECT began, id, bike->>'track' AS track, ms,
    coalesce(TRY_CAST(http->>'$.response.status_code' AS INTEGER) >= 500, true)
    OR upper(coalesce(bike->>'grpc_status', 'OK')) IN {FAULTS} AS failed, NOT failed AND (upper(coalesce(
    bike->>'grpc_status', 'OK')) <> 'OK' OR TRY_CAST(http->>'$.response.status_code' AS INTEGER) >= 400) AS refused,
    refused AND coalesce(bike->>'reason', 'via_upstream') <> 'via_upstream' AS by_gateway
FROM lines WHERE NOT by_gateway AND dataset = 'bike_pipeline.gateway' AND track IS NOT NULL
    AND regexp_matches(path, '^/tensorflow.serving.PredictionService/|:(predict|classify|regress|explain)$')
"""  # noqa: S608
# JSON says what is no number as null, which is another thing than an answer that is not told. Not every client says the
# day. The key is what two tracks were both asked: for a shadow the very request, else the hour.
_ROWS = f"""
CREATE TABLE answers AS SELECT began, id, ms, TRY_CAST(bike->>'version' AS BIGINT) AS version,
    event->>'outcome' = 'failure' AS unanswered, unanswered AND (error->>'code') IN {FAULTS} AS failed,
    unanswered AND NOT failed AS refused,
    json_type(bike, '$.answer') IS NOT NULL AND NOT unanswered AS told,
    coalesce(TRY_CAST(bike->>'answer' AS DOUBLE), 'nan'::DOUBLE) AS answer,
    CASE WHEN $shadow THEN id || '/' || (bike->>'row') ELSE (f->>'yr') || '/' || (f->>'mnth') || '/'
    || coalesce(f->>'day', 'weekday ' || (f->>'weekday')) || '/' || (f->>'hr') END AS key
FROM (SELECT *, bike->'features' AS f FROM lines) WHERE dataset = 'bike_pipeline.requests' AND bike->>'model' = $model
"""  # noqa: S608
# A gateway tells nothing of what it copies, so that the servers' own logs count. A failure is told there without a
# version: it is the shadow's where the client was answered all the same, and where both refused, one of two.
_OF_SHADOW = """
CREATE OR REPLACE TABLE requests AS SELECT began, id, ms, failed, refused, CASE WHEN version = $version OR (unanswered
    AND id IN (SELECT id FROM requests WHERE NOT failed AND NOT refused)) OR (refused AND nth = 2) THEN 'shadow'
    WHEN version = $stable OR unanswered THEN 'stable' END AS track
FROM (SELECT *, row_number() OVER (PARTITION BY id, version ORDER BY began) AS nth FROM answers)
WHERE track IS NOT NULL AND (nth = 1 OR (refused AND nth = 2))
"""
_DIFFERENT = """
SELECT count(*) FILTER (NOT coalesce(abs(answer - mean) <= $tolerance * greatest(abs(mean), $few), false)), count(*)
FROM answers JOIN (SELECT key, avg(answer) AS mean FROM answers WHERE told AND version = $stable AND isfinite(answer)
    GROUP BY key) USING (key) WHERE told AND version = $version
"""
_BY_MINUTE = """
SELECT avg({value}) FILTER (track = $label) - avg({value}) FILTER (track = 'stable') AS difference
FROM requests GROUP BY date_trunc('minute', began) HAVING difference IS NOT NULL ORDER BY min(began)
"""


class Labelled(NamedTuple):
    """What labels say of a rollout: the candidate's share outside of its intervals, and pairs of errors by hour."""

    missed: Share | None
    pairs: Sequence[float]


class LogEvidence:
    """Reads evidence from the logs of a gateway and of the servers behind it."""

    def __init__(
        self,
        access_log: Path,
        request_logs: Sequence[Path],
        model: str,
        tolerance: float,
        labelled: Callable[[Tracked, datetime, datetime], Labelled | None] = lambda *_: None,
    ) -> None:
        """Prepare to read.

        Args:
            access_log: the gateway's.
            request_logs: folders, also those below them count.
            model: the model whose requests count.
            tolerance: relative difference of answers that counts as the same.
            labelled: what labels say of requests between two moments, if any came.
        """
        self._access_log, self._request_logs, self._model = access_log, request_logs, model
        self._tolerance, self._labelled = tolerance, labelled

    def _files(self, first: datetime) -> Iterator[str]:
        """Yield the files that were written to since a moment."""
        older = self._access_log.with_name(f"{self._access_log.name}.1")
        for path in (
            older,
            self._access_log,
            *(path for folder in self._request_logs for path in folder.rglob("*.jsonl")),
        ):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            if status.st_size and status.st_mtime >= first.timestamp():
                yield str(path)

    def read(self, tracked: Tracked, first: datetime, last: datetime) -> Evidence:
        """Return what the logs tell of requests from `first` until before `last`."""
        import duckdb

        files = list(self._files(first))
        if not files:
            return Evidence()
        with duckdb.connect(config={"memory_limit": _MEMORY, "threads": 2}) as database:
            try:
                bounds = [moment.astimezone(UTC).replace(tzinfo=None) for moment in (first, last)]
                database.execute(_LINES, {"files": files, "first": bounds[0], "last": bounds[1]})
                database.execute(_REQUESTS)
                database.execute(_ROWS, {"model": self._model, "shadow": tracked.label == SHADOW})
                versions = {"version": tracked.version, "stable": tracked.stable}
                if tracked.label == SHADOW:
                    database.execute(_OF_SHADOW, versions)
                return self._evidence(database, tracked, versions, self._labelled(tracked, first, last))
            except duckdb.Error as error:
                what = f"the logs cannot be read ({first_words(error)})"
                raise MonitoringError(what, where=str(self._access_log), fix="see the file") from error

    def _evidence(
        self, database: duckdb.DuckDBPyConnection, tracked: Tracked, versions: dict[str, Any], labelled: Labelled | None
    ) -> Evidence:
        limits = {"tolerance": self._tolerance, "few": _FEW_RENTALS}
        bad, rows = database.execute(_DIFFERENT, {**versions, **limits}).fetchall()[0]
        values = {
            ERROR_SHARE: "failed::DOUBLE",
            LATENCY: "CASE WHEN NOT (failed OR refused) AND ms > 0 THEN ln(ms) END",
        }
        pairs = {
            name: [
                float(row[0])
                for row in database.execute(_BY_MINUTE.format(value=value), {"label": tracked.label}).fetchall()
            ]
            for name, value in values.items()
        }
        return Evidence(
            candidate=_track(database, tracked.label, tracked.version),
            stable=_track(database, STABLE, tracked.stable),
            different=Share(bad, rows) if rows else None,
            missed=labelled.missed if labelled else None,
            pairs={**pairs, ERROR: labelled.pairs} if labelled else pairs,
        )


def _track(database: duckdb.DuckDBPyConnection, label: str, version: int) -> TrackEvidence:
    counts = "SELECT count(*), count(*) FILTER (failed), count(*) FILTER (refused) FROM requests WHERE track = ?"
    requests, errors, refused = database.execute(counts, [label]).fetchall()[0]
    answers = "SELECT count(*), count(*) FILTER (NOT isfinite(answer)) FROM answers WHERE told AND version = ?"
    told, not_finite = database.execute(answers, [version]).fetchall()[0]
    durations = "SELECT ms FROM requests WHERE track = ? AND NOT (failed OR refused) AND ms >= 0"
    latency = Latency.of(np.asarray(database.execute(durations, [label]).fetchnumpy()["ms"]))
    return TrackEvidence(requests, errors, told, not_finite, latency, refused)
