"""A source of another form to rows of the feature contract, by a mapping profile (`mapping.py`).

A DuckDB in memory works its expressions out. It reaches neither files nor the network nor this process's variables, and
its configuration is locked (docs/decisions/0032-mapping-profiles.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from bike_pipeline import features
from bike_pipeline.data.manifest import MappingRecord, SourceRecord
from bike_pipeline.data.mapping import Column, Profile, TableProfile, load_profile
from bike_pipeline.data.sources.content import PARQUET, decompressed
from bike_pipeline.data.sources.csv_file import read_csv
from bike_pipeline.data.sources.registry import read_source
from bike_pipeline.data.sources.source_rows import BrokenLine, SourceRows
from bike_pipeline.errors import ConfigurationError, DataError, first_words

_CLOSED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,
    "memory_limit": "2GB",
}
# More days in a row without any event are a file that is missing, or a wrong date; snow has closed a system for six.
_MOST_EMPTY_DAYS = 7
# Temperature as it feels, of °C, % and km/h: wind chill up to 10 °C (US National Weather Service, 2001), heat index
# from 80 °F on (Rothfusz, NWS technical attachment SR 90-23), else the temperature. It is 1.1 °C from the embedded
# data's `atemp` in the mean; the apparent temperature of Australia's weather service is 2.8 °C from it.
_FEELS_LIKE = """CREATE MACRO heat_index(f, h) AS -42.379 + 2.04901523 * f + 10.14333127 * h - 0.22475541 * f * h
  - 6.83783e-3 * f ** 2 - 5.481717e-2 * h ** 2 + 1.22874e-3 * f ** 2 * h + 8.5282e-4 * f * h ** 2
  - 1.99e-6 * f ** 2 * h ** 2;
CREATE MACRO feels_like(t, h, w) AS CASE
  WHEN t <= 10 AND w > 4.8 THEN 13.12 + 0.6215 * t - 11.37 * w ** 0.16 + 0.3965 * t * w ** 0.16
  WHEN t >= 26.67 THEN (heat_index(t * 1.8 + 32, h) - 32) / 1.8 ELSE t END;"""
# A season begins with 21 March, 21 June, 23 September and 21 December, as in the embedded data.
_CALENDAR = {
    features.DATE: "CAST(hour AS DATE)",
    features.HOUR: "extract('hour' FROM hour)",
    "yr": f"extract('year' FROM hour) - {features.FIRST_YEAR}",
    "mnth": "extract('month' FROM hour)",
    "weekday": "extract('dow' FROM hour)",
    "season": "1 + len(list_filter(['0321', '0621', '0923'], lambda d: strftime(hour, '%m%d') BETWEEN d AND '1220'))",
}
_FOLLOWING = {
    "workingday": "CAST(weekday BETWEEN 1 AND 5 AND holiday = 0 AS INTEGER)",
    features.LABEL: "casual + registered",
}


def read_mapped(name: str, source: str, weather: str | None) -> tuple[SourceRows, SourceRecord, tuple[str, ...]]:
    """Return the rows of a source by a mapping, unchecked, where they came from, and what whoever ingests is told.

    Rows whose texts cannot be read are its broken lines. Arguments: `use_cases.data.ingest`.

    Raises:
        ConfigurationError: the mapping is not there or wrong, or goes with weather that is not given, or without.
        DataError: a source cannot be read, lacks a column, or does not hold what the mapping checks.
    """
    profile, sha256 = load_profile(name)
    if (profile.weather is None) != (weather is None):
        problem = "takes no weather file" if profile.weather is None else "needs a weather file"
        raise ConfigurationError(f"the mapping {problem}", where=name, fix="see --weather in docs/data.md")
    rows, origin = read_source(source, read=partial(_texts, profile))
    record = MappingRecord(name=name.rpartition("/")[2], sha256=sha256)
    work = _Work(profile, name, origin.location)
    broken = work.read("source", profile, rows)
    if profile.sums:
        work.sum_up()
    if profile.weather is not None and weather is not None:
        found, beside = read_source(weather, read=partial(_texts, profile.weather))
        record = record.model_copy(update={"weather": beside.files})
        work.join_weather(profile.weather, found, beside.location)
    mapped = work.values()
    number = np.arange(1, mapped.num_rows + 1)
    # A sum is of many lines; what is said of it names its number.
    places = np.zeros_like(number) if profile.sums else mapped.column("place").to_numpy()
    rows = replace(
        rows,
        table=mapped.append_column("instant", pa.array(number)).select(list(features.COLUMNS)),
        lines=number if profile.sums else rows.lines[places],
        files=rows.files[places],
        broken=(*rows.broken, *broken),
    )
    return rows, origin.model_copy(update={"mapping": record}), (*profile.notes, *work.notes)


def _texts(profile: TableProfile, content: bytes, name: str) -> SourceRows:
    """Return the columns of one file that a profile reads, as texts."""
    if content.startswith(PARQUET):
        raise DataError("it is a Parquet file, and a mapping reads CSV", where=name, fix="export it as CSV")
    content = decompressed(content, name)
    for _ in range(profile.skip_lines):
        content = content.partition(b"\n")[2]
    try:
        text = content.decode(profile.encoding)
    except UnicodeDecodeError as error:
        problem = f"it is not {profile.encoding}, as the mapping says (byte {error.start})"
        raise DataError(problem, where=name, fix="export it so, or correct `encoding` in the mapping") from None
    rows = read_csv(text.encode(), name, {alias: column.named for alias, column in profile.columns.items()})
    return replace(rows, lines=rows.lines + profile.skip_lines)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _reading(alias: str, column: Column) -> tuple[str, str]:
    """Return the SQL that reads a column's texts, and that of why one cannot be read, NULL if it can."""
    text = sql = f'trim("{alias}")'
    wanted = "a text"
    if column.codes:
        cases = " ".join(f"WHEN {_quoted(code)} THEN {number}" for code, number in column.codes.items())
        sql, wanted = f"CASE {text} {cases} END", f"one of {', '.join(column.codes)}"
    elif column.time:
        forms = ", ".join(map(_quoted, column.time))
        sql, wanted = f"try_strptime({text}, [{forms}])", f"a time ({' or '.join(column.time)})"
    elif column.number:
        sql, wanted = f"TRY_CAST({text} AS DOUBLE)", "a number"
    said = f"{_quoted(f'{column.named[0]}: ')} || left({text}, 40) || {_quoted(f' is not {wanted}')}"
    return sql, f"CASE WHEN {text} <> '' AND {sql} IS NULL THEN {said} END"


class _Work:
    """One mapping at work in a database of its own: the table `now`, and what is to be told."""

    def __init__(self, profile: Profile, name: str, where: str) -> None:
        import duckdb
        from pandas.tseries.holiday import USFederalHolidayCalendar

        self._profile, self._name, self._where = profile, name, where
        self.notes: list[str] = []
        self._database = duckdb.connect(":memory:", config=_CLOSED)
        self._database.execute(_FEELS_LIKE)
        days = USFederalHolidayCalendar().holidays(datetime(2010, 1, 1), datetime(2100, 1, 1))
        self._database.register("federal_holidays", pa.table({"day": pa.array(days.date)}))
        self._database.execute("SET lock_configuration = true")

    def _ask(self, sql: str) -> list[tuple[Any, ...]]:
        import duckdb

        try:
            return self._database.execute(sql).fetchall()
        except duckdb.Error as error:
            problem = f"an expression cannot be worked out ({first_words(error)})"
            raise ConfigurationError(problem, where=self._name, fix="correct it in the mapping") from None

    def _make(self, table: str, columns: Mapping[str, str], source: str = "now") -> None:
        made = ", ".join(f'({sql}) AS "{name}"' for name, sql in columns.items())
        self._ask(f"CREATE OR REPLACE TABLE {table} AS SELECT {made} FROM {source}")

    def read(self, name: str, profile: TableProfile, rows: SourceRows, table: str = "now") -> list[BrokenLine]:
        """Make a table of what a profile reads, with `place` and `hour`; return the lines that cannot be read."""
        texts = rows.table.append_column("place", pa.array(np.arange(rows.table.num_rows)))
        self._database.register(name, texts)
        reading = {alias: _reading(alias, column) for alias, column in profile.columns.items()}
        columns = {"place": "place", "reason": f"concat_ws('; ', {', '.join(why for _, why in reading.values())})"}
        self._make("typed", {alias: sql for alias, (sql, _) in reading.items()} | columns, name)
        self._ask(f"CREATE TABLE {table} AS SELECT *, CAST(({profile.hour}) AS TIMESTAMP) AS hour FROM typed")
        for words, expression in profile.leave_out.items():
            if left := len(self._ask(f"DELETE FROM {table} WHERE ({expression}) RETURNING place")):
                self.notes.append(f"{left:,} rows were left out: {words}")
        odd = "CASE WHEN hour IS NULL THEN 'it has no time' ELSE hour || ' is not a full hour' END"
        no_hour = "hour IS NULL OR hour <> date_trunc('hour', hour)"
        self._ask(f"UPDATE {table} SET reason = {odd} WHERE reason = '' AND ({no_hour})")
        wrong = sorted(self._ask(f"DELETE FROM {table} WHERE reason <> '' RETURNING place, reason"))
        broken = [
            BrokenLine(int(rows.files[at]), int(rows.lines[at]), ",".join(map(str, row.values())), reason)
            for (at, reason), row in zip(
                wrong, rows.table.take(pa.array([at for at, _ in wrong], pa.int64())).to_pylist(), strict=True
            )
        ]
        if not self._ask(f"SELECT 1 FROM {table} LIMIT 1"):
            why = f"; line {broken[0].line}: {broken[0].reason}" if broken else ""
            raise DataError(f"no row can be used{why}", where=self._where, fix="check the file and the mapping")
        return broken

    def sum_up(self) -> None:
        """Make of events a row an hour, from the first one's to the last one's, without hours that the clock skips."""
        self._make("counted", {"hour": "hour", **self._profile.sums}, "now GROUP BY ALL")
        before = "SELECT lag(hour) OVER (ORDER BY hour) AS before, hour FROM counted"
        for gap in self._ask(f"FROM ({before}) WHERE hour - before > INTERVAL {_MOST_EMPTY_DAYS} DAY"):
            problem = f"there is nothing between {gap[0]} and {gap[1]}"
            raise DataError(
                problem, where=self._where, fix="give the files of these days, too, or correct a wrong date"
            )
        every = "(SELECT unnest(generate_series(min(hour), max(hour), INTERVAL 1 HOUR)) AS clock FROM counted)"
        zone = _quoted(self._profile.time_zone)
        there = f"hour IS NOT NULL OR clock = (clock AT TIME ZONE {zone}) AT TIME ZONE {zone}"
        columns = {"hour": "clock", "place": "row_number() OVER (ORDER BY clock)", "empty": "hour IS NULL"}
        sums = {alias: f'coalesce("{alias}", 0)' for alias in self._profile.sums}
        self._make("now", columns | sums, f"{every} LEFT JOIN counted ON hour = clock WHERE {there}")
        if empty := self._ask("SELECT count(*) FROM now WHERE empty")[0][0]:
            self.notes.append(f"{empty:,} hours between the first and the last row have none and count 0")

    def join_weather(self, profile: TableProfile, rows: SourceRows, where: str) -> None:
        """Join the weather of each hour; hours without it are told, and break the contract."""
        for line in (*rows.broken, *self.read("weather_texts", profile, rows, "weather")):
            raise DataError(f"line {line.line}: {line.reason}", where=where, fix="correct the weather file")
        for (hour,) in self._ask("SELECT hour FROM weather GROUP BY hour HAVING count(*) > 1 ORDER BY hour"):
            raise DataError(f"the hour {hour} stands there twice", where=where, fix="keep one row an hour")
        ((lacking, first),) = self._ask("SELECT count(*), min(hour) FROM now ANTI JOIN weather USING (hour)")
        if lacking:
            self.notes.append(f"{lacking:,} hours have no weather, the first {first}")
        beside = "(SELECT * EXCLUDE (place, reason) FROM weather)"
        self._ask(f"CREATE OR REPLACE TABLE now AS SELECT * FROM now LEFT JOIN {beside} USING (hour)")

    def values(self) -> pa.Table:
        """Return the contract's columns but `instant`, and `place`."""
        profile = self._profile
        for words, expression in profile.checks.items():
            if self._ask(f"SELECT ({expression}) FROM now") == [(False,)]:
                raise DataError(
                    words, where=self._where, fix="convert it, or correct the unit in a mapping of your own"
                )
        self._make("now", _CALENDAR | dict(profile.values) | {"place": "place"})
        final = {name: name for name in ("place", *features.COLUMNS[1:])}
        final |= {name: sql for name, sql in _FOLLOWING.items() if name not in profile.values}
        for name, (scale, offset, _) in features.PHYSICAL.items():
            final[name] = f"(CAST({name} AS DOUBLE) - ({offset})) / {scale}"
            if name in profile.clip:
                # What is missing or no number stays so, for the contract to see.
                beyond, value = f"isfinite({final[name]}) AND {final[name]} NOT BETWEEN 0 AND 1", final[name]
                final[name] = f"CASE WHEN {beyond} THEN greatest(0.0, least(1.0, {value})) ELSE {value} END"
                if clipped := len(self._ask(f"SELECT 1 FROM now WHERE {beyond}")):
                    self.notes.append(
                        f"{clipped:,} values of {name} are beyond the contract's range: its bound instead"
                    )
        self._make("now", final)
        return self._database.sql("FROM now ORDER BY place").to_arrow_table()
