"""Commands that ask the model: `predict`, `predict-batch`."""

from __future__ import annotations

import csv
import json
import math
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from bike_pipeline import features
from bike_pipeline.commands import shared
from bike_pipeline.errors import DataError, ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bike_pipeline.serving.records import Record
    from bike_pipeline.settings import Settings


# How many decimals an answer is written with, by its unit.
_DECIMALS = {"rentals an hour": 2, "probability": 4}


@shared.command()
@click.option("--version", type=int, help="A version of the served model; the promoted one by default.")
@click.option("--server", metavar="ADDRESS", help="Ask a model server; a host, host:port or grpc://….")
@click.option("--protocol", type=click.Choice(["rest", "grpc"]), help="What that server is asked in.")
@click.option("--label", default="", help="The version label that the server's answer is wanted of.")
@click.option("--intervals", is_flag=True, help="Answer with quantiles, too: what training.feedback.quantiles names.")
@click.option("--last-day", metavar="FILE", help="Records of the hours before, with cnt: they move the answers.")
@click.option("--json", "as_json", is_flag=True, help="Answer with one JSON record a line, for CSV input too.")
@click.argument("records", required=False, default="-")
def predict_command(
    settings: Settings, as_json: bool, intervals: bool, last_day: str | None, records: str, **options: Any
) -> None:
    """Predict the rentals an hour for RECORDS: a JSON record, a CSV or JSON file, gzip too, or "-" for standard input.

    A record names the model's inputs; its date (dteday) stands for year, month, weekday and, with holiday, working day.
    Values are read as those of an ingest, and one that contradicts the date is refused.
    JSON is answered with one number a record, CSV with the same rows and a column predicted_cnt; with --intervals, with
    records that hold the quantiles. A model of another target (training.target) answers that, in a column of its name.
    With --last-day an hour is answered by whoever knows the rentals of the hours before it.

    The model is loaded from the serving folder into this process; with --server, a model server that speaks TF
    Serving's protocols is asked instead, and this process loads no TensorFlow.
    """
    in_process = options["server"] is None
    if in_process and (options["protocol"] is not None or options["label"]):
        raise click.UsageError("--protocol and --label are about a model server: name it with --server")
    if intervals and not in_process:
        raise click.UsageError(
            "--intervals loads the model here; a server is asked for its signature serving_intervals"
        )
    from bike_pipeline.serving.records import is_json, parse
    from bike_pipeline.use_cases.serving import predict, predict_intervals

    text, where = _read(records)
    parsed = parse(text, where)
    options["last_day"] = parse(*_read(last_day)) if last_day else ()
    log = settings.logs_path / "predict.log"
    with shared.captured(log) if in_process else nullcontext(sys.stdout) as screen:
        if intervals:
            found = predict_intervals(
                settings, parsed, source=where, version=options["version"], last_day=options["last_day"]
            )
            predicted = [row.pop(features.LABEL) for row in found]
        else:
            predicted, found = predict(settings, parsed, source=where, **options), [{} for _ in parsed]
        as_numbers = is_json(text) and not (as_json or intervals)
        answer = features.ANSWERS[settings.training.target]
        _write(screen, parsed, predicted, found, answer, as_csv=not (is_json(text) or as_json), as_numbers=as_numbers)


def _write(
    screen: TextIO,
    parsed: Sequence[Record],
    predicted: Sequence[float],
    quantiles: Sequence[dict[str, float]],
    answer: features.Answer,
    *,
    as_csv: bool,
    as_numbers: bool,
) -> None:
    """Write the answers: as JSON records, as numbers, or as the CSV that was sent with columns more."""
    name, decimals = f"predicted_{answer.output}", _DECIMALS[answer.unit]
    answers = [{name: value, **row} for value, row in zip(predicted, quantiles, strict=True)]
    if not as_csv:
        for record, found in zip(parsed, answers, strict=True):
            # JSON has no word for what is no number; nothing else in the output is touched.
            rounded = {key: round(value, decimals) if math.isfinite(value) else None for key, value in found.items()}
            screen.write(json.dumps(rounded[name] if as_numbers else {**record, **rounded}) + "\n")
        return
    columns = [*(column for column in parsed[0] if column not in answers[0]), *answers[0]]
    writer = csv.DictWriter(screen, columns, lineterminator="\n")
    writer.writeheader()
    for record, found in zip(parsed, answers, strict=True):
        writer.writerow({**record, **{key: f"{value:.{decimals}f}" for key, value in found.items()}})


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


@shared.command()
@click.option("--output", metavar="FOLDER", required=True, help="Where the answers go: a folder, s3:// or gs://.")
@click.option("--version", type=int, help="A pushed version; the promoted one by default.")
@click.option(
    "--partition",
    type=click.Choice(["day", "month"]),
    default="month",
    show_default=True,
    help="What the answers are laid out by.",
)
@shared.json_option
@click.argument("source", metavar="INPUT")
def predict_batch_command(settings: Settings, as_json: bool, source: str, output: str, **options: Any) -> None:
    """Answer every row of INPUT into partitioned Parquet: a CSV or Parquet file, a folder, a "pattern*", s3://, gs://.

    The answers are the embedded server's, bit for bit. It runs on the Beam engine of the settings (beam). Broken off,
    it goes on from there when it is called again. Rows that cannot be answered are set aside with the reason in
    FOLDER/rejected; the exit code is 4 then.
    """
    from bike_pipeline.use_cases.batch import predict_batch

    with shared.captured(settings.logs_path / "predict-batch.log") as screen:
        done = predict_batch(settings, source, output, **options)
        said = f"{done.rows:,} rows of {done.inputs} files answered by version {done.version} ({done.backend})"
        shared.answer(done, lambda _: said, as_json, screen)
    done.require_all()
