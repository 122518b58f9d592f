"""`bike-pipeline predict`: ask the served model."""

from __future__ import annotations

import csv
import json
import math
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from bike_pipeline.commands.options import settings_options
from bike_pipeline.commands.output import captured
from bike_pipeline.errors import DataError, ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bike_pipeline.serving.clients.connection import Protocol
    from bike_pipeline.serving.records import Record
    from bike_pipeline.settings import Settings

PREDICTION = "predicted_cnt"


@click.command()
@settings_options
@click.option("--version", type=int, default=None, help="A version of the served model; the promoted one by default.")
@click.option("--server", metavar="ADDRESS", default=None, help="Ask a model server; a host, host:port or grpc://….")
@click.option("--protocol", type=click.Choice(["rest", "grpc"]), default=None, help="What that server is asked in.")
@click.option("--label", default="", help="The version label that the server's answer is wanted of.")
@click.option("--json", "as_json", is_flag=True, help="Answer with one JSON record a line, for CSV input too.")
@click.argument("records", required=False, default="-")
def command(
    settings: Settings,
    version: int | None,
    server: str | None,
    protocol: Protocol | None,
    label: str,
    as_json: bool,
    records: str,
) -> None:
    """Predict the rentals an hour for RECORDS: a JSON record, a CSV or JSON file, gzip too, or "-" for standard input.

    A record names the model's inputs; its date (dteday) stands for year, month, weekday and, with holiday, working day.
    Values are read as those of an ingest, and one that contradicts the date is refused.
    JSON is answered with one number a record, CSV with the same rows and a column predicted_cnt.

    The model is loaded from the serving folder into this process; with --server, a model server that speaks TF
    Serving's protocols is asked instead, and this process loads no TensorFlow.
    """
    if server is None and (protocol is not None or label):
        raise click.UsageError("--protocol and --label are about a model server: name it with --server")
    from bike_pipeline.serving.records import is_json, parse
    from bike_pipeline.use_cases.predict import predict

    text, where = _read(records)
    parsed = parse(text, where)
    log = settings.logs_path / "predict.log"
    with captured(log) if server is None else nullcontext(sys.stdout) as screen:
        predicted = predict(
            settings, parsed, version=version, server=server, protocol=protocol, label=label, source=where
        )
        _write(screen, parsed, predicted, as_json=as_json, as_numbers=is_json(text))


def _write(
    screen: TextIO, parsed: Sequence[Record], predicted: Sequence[float], *, as_json: bool, as_numbers: bool
) -> None:
    """Write the answers: as JSON records, as numbers, or as the CSV that was sent with a column more."""
    # JSON has no word for what is no number; nothing else in the output is touched.
    rounded = [round(value, 2) if math.isfinite(value) else None for value in predicted]
    if as_json or as_numbers:
        screen.writelines(
            json.dumps({**record, PREDICTION: value} if as_json else value) + "\n"
            for record, value in zip(parsed, rounded, strict=True)
        )
        return
    writer = csv.DictWriter(
        screen, [*(name for name in parsed[0] if name != PREDICTION), PREDICTION], lineterminator="\n"
    )
    writer.writeheader()
    for record, value in zip(parsed, predicted, strict=True):
        writer.writerow({**record, PREDICTION: f"{value:.2f}"})


def _read(records: str) -> tuple[str, str]:
    if records.lstrip()[:1] in ("{", "["):
        return records, "the command line"
    where = "standard input" if records == "-" else records
    try:
        content = sys.stdin.buffer.read() if records == "-" else Path(records).read_bytes()
    except FileNotFoundError:
        raise ModelError(
            "no such file", where=where, fix="name a CSV or JSON file, or write a record: '{\"hr\": 8, …}'"
        ) from None
    except OSError as error:
        raise ModelError(f"cannot read it ({error})", where=where, fix="it must be a readable text file") from None
    from bike_pipeline.data.sources.content import text_of

    try:
        return text_of(content, where), where
    except DataError as error:
        raise ModelError(error.what, where=error.where, fix=error.fix) from None
