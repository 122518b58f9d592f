"""What was asked and answered, and the labels that came later: Parquet by day of the request, read by DuckDB.

A line that is known already changes nothing. Labels lie in a file of their own and are joined on the hour when rows
are read, so that late and corrected ones cost nothing.
"""

from __future__ import annotations

import contextlib
import glob
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bike_pipeline import features
from bike_pipeline.errors import DataError, first_words
from bike_pipeline.modeling.label_update import hour_of
from bike_pipeline.monitoring import request_logs
from bike_pipeline.monitoring.ingested import Added, Freshness, Joined
from bike_pipeline.monitoring.request_logs import ABOUT, ANSWERED, PLACE, Reading
from bike_pipeline.monitoring.stored_files import STAGING, StoredFiles
from bike_pipeline.storage.atomic_files import one_error

if TYPE_CHECKING:
    import duckdb

# What DuckDB may hold; beyond it writes to the disk.
MEMORY = "400MB"
_FIRST = datetime(features.FIRST_YEAR, 1, 1)
_INPUTS = tuple(feature.name for feature in features.MODEL_INPUTS)
_STORED = (*ABOUT, "hour", *_INPUTS, *ANSWERED)
_KEY = ("request_id", "row", "requested_at")
# Every column that is read, in its order; the label and whether it was corrected come behind.
COLUMNS = (
    "request_id", "row", "requested_at", "sampling_rate", "version", "latency_us", "hour", *_INPUTS, *ANSWERED,
)  # fmt: skip

Columns = dict[str, npt.NDArray[Any]]


class ObservationStore:
    """Rows and labels in a folder; nothing is made before something is added."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._files = folder, StoredFiles(folder)

    def add(self, log: Path, model: str, now: datetime) -> Added:
        """Add the rows of the request log in a folder, or of one file of it; those that are known change nothing.

        Args:
            log: the folder or file; one that is not there has no rows.
            model: the model whose requests count.
            now: the time, with a zone.

        Raises:
            StorageError: a file cannot be read or written; nothing was changed.
            DataError: the store is damaged.
            BusyError: another process adds to it.
        """
        with self._files.changing() as manifest, one_error("read", log):
            found = sorted(p for p in (log.iterdir() if log.is_dir() else [log]) if request_logs.is_log(p))
            stamps = {path.name: request_logs.stamp_of(path) for path in found}
            reading = Reading()
            with tempfile.TemporaryDirectory(prefix=STAGING, dir=self._folder) as aside:
                staged = Path(aside)
                read_before = manifest["logs"]
                changed = [path for path in found if read_before.get(path.name) != stamps[path.name]]
                request_logs.stage(changed, staged, model, now, reading)
                rows, without_day, known = self._merge(staged, manifest, reading)
            place = reading.write(self._folder / "set-aside")
            manifest["logs"] = stamps
            manifest["ingested_at"] = now.astimezone(UTC).isoformat(timespec="seconds")
        other, reasons = dict(reading.other), dict(reading.reasons)
        counts = (reading.files, reading.lines, rows, known, reading.failures, without_day)
        return Added(*counts, other, reasons, place)

    def _merge(self, staged: Path, manifest: dict[str, Any], reading: Reading) -> tuple[int, int, int]:
        """Merge staged rows into their days; return how many are new, how many of these have no day, and known ones."""
        if not any(staged.glob("*.parquet")):
            return 0, 0, 0
        rows = without_day = total = 0
        with self._database() as database:
            _parquet(database, sorted(staged.glob("*.parquet"))).create_view("staged")
            days = database.execute("SELECT CAST(requested_at AS DATE), count(*) FROM staged GROUP BY 1 ORDER BY 1")
            for day, count in days.fetchall():
                total += count
                name = f"{day:%Y-%m-%d}"
                before = manifest["days"].get(name)
                new, of_them = self._merge_day(database, name, before and self._files.checked(before), reading)
                if new:
                    manifest["days"][name] = self._keep(database, name, staged)
                rows, without_day = rows + new, without_day + of_them
        return rows, without_day, total - rows

    def _merge_day(
        self, database: duckdb.DuckDBPyConnection, day: str, known: Path | None, reading: Reading
    ) -> tuple[int, int]:
        """Leave a day's rows, each key once, in the table `day`; return how many are new, and how many have no day.

        A row that contradicts one of its key is set aside.
        """
        columns, key = ", ".join(_STORED), ", ".join(_KEY)
        before = ""
        if known is not None:
            _parquet(database, [known]).create_view("known", replace=True)
            before = f"SELECT {columns}, '' AS file, 0 AS line FROM known UNION ALL "  # noqa: S608
        place = ", ".join(PLACE)
        every = f"{before}SELECT {columns}, {place} FROM staged WHERE CAST(requested_at AS DATE) = DATE '{day}'"  # noqa: S608
        database.execute(
            f"CREATE OR REPLACE TABLE day AS SELECT * FROM ({every}) "  # noqa: S608
            f"QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY file <> '', file, line) = 1"
        )
        contradict = database.execute(
            f"SELECT s.file, s.line FROM staged s JOIN day d USING ({key}) WHERE s.digest <> d.digest ORDER BY 1, 2"  # noqa: S608
        )
        for file, line in contradict.fetchall():
            reading.set_aside(file, line, "contradicts a line of the same id")
        new = "SELECT count(*), count(*) FILTER (hour < 0 AND code = 'OK') FROM day WHERE file <> ''"
        (found,) = database.execute(new).fetchall()
        return int(found[0]), int(found[1])

    def _keep(self, database: duckdb.DuckDBPyConnection, day: str, aside: Path) -> dict[str, Any]:
        """Write the table `day` to its place; return what the manifest says of it."""
        path = aside / "day"
        statement = f"SELECT {', '.join(_STORED)} FROM day ORDER BY requested_at, request_id, row"  # noqa: S608
        database.sql(statement).write_parquet(str(path), compression="zstd")
        (found,) = database.execute("SELECT count(*), max(requested_at) FROM day").fetchall()
        record = self._files.placed(path, f"days/{day}")
        return {**record, "rows": int(found[0]), "last": found[1].isoformat()}

    def join_labels(
        self, hours: npt.NDArray[np.int64], labels: npt.NDArray[Any], spans: Mapping[str, int] | None = None
    ) -> Joined:
        """Take labels of hours, each once and finite, whatever rows there are; another label of an hour corrects it.

        Args:
            hours: as of `modeling.feedback.hours_of`, (labels,).
            labels: rentals, (labels,).
            spans: the versions of spans that they are of, which need not be read again.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        with self._files.changing() as manifest:
            before = self._labels(manifest)
            label = np.asarray(labels, np.float64)
            known = _joined(hours, before)["label"]
            corrected = ~np.isnan(known) & (known != label)
            changed = np.isnan(known) | corrected
            if changed.any():
                kept = ~np.isin(before["hour"], hours[changed])
                upload = {"hour": hours, "label": label, "corrected": corrected}
                joined = {name: np.concatenate([v[kept], upload[name][changed]]) for name, v in before.items()}
                order = np.argsort(joined["hour"])
                with tempfile.TemporaryDirectory(prefix=STAGING, dir=self._folder) as aside:
                    path = Path(aside, "labels")
                    with one_error("write", path):
                        pq.write_table(pa.table({n: v[order] for n, v in joined.items()}), path, compression="zstd")
                    manifest["labels"] = self._files.placed(path, "labels")
            manifest["spans"] |= dict(spans or {})
        return Joined(int((changed & ~corrected).sum()), int(corrected.sum()), int((~changed).sum()))

    @property
    def spans(self) -> dict[str, int]:
        """The version of each span whose labels are here."""
        return dict(self._files.manifest()["spans"])

    def columns(
        self,
        first: datetime | None = None,
        last: datetime | None = None,
        names: Sequence[str] = COLUMNS,
        most: int | None = None,
    ) -> Columns:
        """Return the answered rows between two moments, inclusive, in the order they were asked in, with their labels.

        The moment of a row is its hour, local; where it has none, when it was asked, UTC.

        Args:
            first: the first moment; None for that of the oldest row.
            last: the last moment; None for that of the newest row.
            names: columns to read, "hour" among them.
            most: about so many rows at most, of requests that are drawn by their id: always the same ones.
        """
        which = _between(first, last)
        if most is not None:
            statement = f"SELECT count(*) AS n FROM rows WHERE code = 'OK' AND {which}"  # noqa: S608
            counted = self._query(statement, self._files.manifest())
            share = most / max(int(counted["n"][0]), 1)
            which += f" AND hash(request_id) < {int(share * 2**64)}::UBIGINT" if share < 1.0 else ""
        return self._answered(which, {}, names)

    def request(self, request_id: str) -> Columns:
        """Return the answered rows of all requests with an id, in the order they were asked in, with their labels."""
        return self._answered("request_id = $id ORDER BY requested_at, row", {"id": request_id})

    def _answered(self, which: str, values: Mapping[str, str], names: Sequence[str] = COLUMNS) -> Columns:
        manifest = self._files.manifest()
        wanted = ", ".join(names)
        statement = f"SELECT {wanted} FROM rows WHERE code = 'OK' AND {which}"  # noqa: S608
        found = self._query(statement, manifest, values)
        if "requested_at" in found:
            found["requested_at"] = found["requested_at"].astype("datetime64[ms]")
        return found | _joined(found["hour"], self._labels(manifest))

    def hours(
        self, first: datetime | None = None, last: datetime | None = None, now: datetime | None = None
    ) -> Columns:
        """Return the hours that were asked about: hour, predicted (rows), label, and state, rising.

        The state is "predicted" before the hour is over, local time being taken for UTC; "waiting" without a label;
        "known"; or "corrected".
        """
        manifest = self._files.manifest()
        statement = (
            "SELECT hour, count(*) AS predicted FROM rows "  # noqa: S608
            f"WHERE code = 'OK' AND hour >= 0 AND {_between(first, last)} GROUP BY hour ORDER BY hour"
        )
        found = self._query(statement, manifest)
        joined = _joined(found["hour"], self._labels(manifest))
        passed = hour_of((now or datetime.now(UTC)).replace(tzinfo=None))
        waiting = np.where(found["hour"] >= passed, "predicted", "waiting")
        known = np.where(joined["corrected"], "corrected", "known")
        return found | {"label": joined["label"], "state": np.where(np.isnan(joined["label"]), waiting, known)}

    def failures(self) -> Columns:
        """Return when requests were answered with an error, and with which: requested_at, code."""
        return self._query("SELECT requested_at, code FROM rows WHERE code <> 'OK'", self._files.manifest())

    def freshness(self) -> Freshness:
        """Return how new what is known is."""
        manifest = self._files.manifest()
        labelled = self._labels(manifest)["hour"]
        ingested = manifest["ingested_at"]
        days = [day["last"] for day in manifest["days"].values()]
        return Freshness(
            datetime.fromisoformat(ingested) if ingested else None,
            datetime.fromisoformat(max(days)) if days else None,
            int(labelled[-1]) if len(labelled) else None,
        )

    def _labels(self, manifest: Mapping[str, Any]) -> Columns:
        record = manifest["labels"]
        if record is None:
            return {"hour": np.zeros(0, np.int64), "label": np.zeros(0), "corrected": np.zeros(0, bool)}
        import pyarrow.parquet as pq

        table = pq.read_table(self._files.checked(record))
        return {name: table.column(name).to_numpy() for name in ("hour", "label", "corrected")}

    def _query(self, statement: str, manifest: Mapping[str, Any], values: Mapping[str, str] | None = None) -> Columns:
        """Return what a statement about `rows` finds; `values` stand for its names."""
        files = [self._files.checked(record) for _, record in sorted(manifest["days"].items())]
        with self._database() as database:
            if files:
                _parquet(database, files).create_view("rows")
            else:
                import pyarrow as pa

                database.register("rows", pa.Table.from_pylist([], schema=request_logs.schema()))
            found = database.execute(statement, dict(values or {})).fetchnumpy()
        return {name: np.asarray(values) for name, values in found.items()}

    @contextlib.contextmanager
    def _database(self) -> Iterator[duckdb.DuckDBPyConnection]:
        import duckdb

        with tempfile.TemporaryDirectory(prefix="bike-monitoring-") as aside:
            database = duckdb.connect(config={"memory_limit": MEMORY, "threads": 2, "temp_directory": aside})
            try:
                yield database
            except duckdb.Error as error:
                raise DataError(
                    f"DuckDB cannot work on the observations ({first_words(error)})",
                    where=str(self._folder),
                    fix="free space and memory, and run it again",
                ) from error
            finally:
                database.close()


def _parquet(database: duckdb.DuckDBPyConnection, files: Sequence[Path]) -> duckdb.DuckDBPyRelation:
    # A name with a bracket is no pattern.
    rows = database.read_parquet([glob.escape(str(path)) for path in files], union_by_name=True)
    # Days of a former release have no sampling rate: all requests of theirs counted as one.
    if "sampling_rate" not in rows.columns:
        return rows.project("*, 1.0::DOUBLE AS sampling_rate")
    return rows.project("* REPLACE (coalesce(sampling_rate, 1.0) AS sampling_rate)")


def _between(first: datetime | None, last: datetime | None) -> str:
    """Return the condition of rows between two moments, inclusive."""
    hours, moments = [], []
    if first is not None:
        # The first hour that begins then or later.
        hours.append(f"hour >= {-((_FIRST - first) // timedelta(hours=1))}")
        moments.append(f"requested_at >= TIMESTAMP '{first.isoformat()}'")
    if last is not None:
        hours.append(f"hour <= {hour_of(last)}")
        moments.append(f"requested_at <= TIMESTAMP '{last.isoformat()}'")
    by_hour, by_moment = (" AND ".join(parts) or "true" for parts in (hours, moments))
    return f"CASE WHEN hour >= 0 THEN {by_hour} ELSE {by_moment} END"


def _joined(hours: npt.NDArray[np.int64], known: Columns) -> Columns:
    """Return label and corrected of hours; NaN where there is none."""
    label, corrected = np.full(len(hours), np.nan), np.zeros(len(hours), bool)
    if len(known["hour"]):
        places = np.minimum(np.searchsorted(known["hour"], hours), len(known["hour"]) - 1)
        there = known["hour"][places] == hours
        label[there], corrected[there] = known["label"][places[there]], known["corrected"][places[there]]
    return {"label": label, "corrected": corrected}
