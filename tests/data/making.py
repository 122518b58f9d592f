"""Rows, uploads and a loopback server for the tests of the data room."""

from __future__ import annotations

import datetime as dt
import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from bike_pipeline import features
from bike_pipeline.data.contract import CheckedRows, check_rows
from bike_pipeline.data.manifest import DataFormat, IngestResult, SourceRecord
from bike_pipeline.data.sources.csv_file import read_csv
from bike_pipeline.data.spans import SpanStore

Row = dict[str, str]


def make_row(hour: dt.datetime, *, seed: int = 0, instant: int = 1) -> Row:
    """Return one row that fits the contract; the same hour and seed give the same row."""
    dice = random.Random(f"{hour.isoformat()} {seed}")
    weekday = hour.isoweekday() % 7
    holiday = int(dice.random() < 0.03)
    casual, registered = dice.randrange(300), dice.randrange(800)
    values = {
        "instant": instant,
        "dteday": hour.date().isoformat(),
        "season": dice.randint(1, 4),
        "yr": hour.year - features.FIRST_YEAR,
        "mnth": hour.month,
        "hr": hour.hour,
        "holiday": holiday,
        "weekday": weekday,
        "workingday": int(1 <= weekday <= 5 and not holiday),
        "weathersit": dice.randint(1, 4),
        "temp": round(dice.random(), 2),
        "atemp": round(dice.random(), 4),
        "hum": round(dice.random(), 2),
        "windspeed": round(dice.random(), 4),
        "casual": casual,
        "registered": registered,
        "cnt": casual + registered,
    }
    return {name: str(value) for name, value in values.items()}


def make_rows(start: str = "2011-01-01", days: float = 3, *, seed: int = 0) -> list[Row]:
    """Return one row an hour from `start` on."""
    first = dt.datetime.fromisoformat(start)
    return [make_row(first + dt.timedelta(hours=n), seed=seed, instant=n + 1) for n in range(round(days * 24))]


def to_csv(rows: Sequence[Mapping[str, str]], columns: Sequence[str] = features.COLUMNS, separator: str = ",") -> bytes:
    """Return rows as an upload."""
    lines = [separator.join(columns), *(separator.join(row[name] for name in columns) for row in rows)]
    return ("\n".join(lines) + "\n").encode()


def check(rows: Sequence[Mapping[str, str]]) -> CheckedRows:
    """Return the outcome of the row checks."""
    return check_rows(read_csv(to_csv(rows), "upload.csv"))


def reasons_by_line(checked: CheckedRows) -> dict[int, list[str]]:
    """Return the reasons of each rejected line."""
    table = checked.rejected
    return {
        line: said.split("; ")
        for line, said in zip(table["line"].to_pylist(), table["reasons"].to_pylist(), strict=True)
    }


UPLOAD = SourceRecord(kind="file", location="upload.csv")

Answer = tuple[int, Mapping[str, str], bytes]


@contextmanager
def serving(answers: Mapping[str, Answer], requests: list[Mapping[str, str]] | None = None) -> Iterator[str]:
    """Serve fixed answers by path on a free loopback port and give the address; headers of requests are kept."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if requests is not None:
                requests.append(dict(self.headers))
            status, headers, body = answers.get(self.path.partition("?")[0], (404, {}, b"nothing here"))
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
            """Stay quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def add(
    store: SpanStore,
    start: str = "2011-01-01",
    days: float = 5,
    *,
    seed: int = 0,
    span: int | None = None,
    fraction: float = 0.2,
    rows: Sequence[Row] | None = None,
    data_format: DataFormat = "csv",
) -> IngestResult:
    """Add rows to a store, by default those of `days` from `start` on."""
    checked = check(rows or make_rows(start, days, seed=seed))
    return store.add(checked, UPLOAD, eval_fraction=fraction, data_format=data_format, span=span)


def tree(root: Path) -> dict[str, bytes]:
    """Return the files below a folder, without locks."""
    return {
        str(p.relative_to(root)): p.read_bytes() for p in Path(root).rglob("*") if p.is_file() and p.name != ".lock"
    }
