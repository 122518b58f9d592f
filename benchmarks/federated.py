"""Federated training against central training and each client alone, on the first half of the embedded data.

Clients hold the hours of one season, or of one kind of weather, of the first four fifths; the last fifth tests. Server
and clients are processes of their own that speak Flower's protocol on loopback (see `bike_pipeline.federated`). Central
training sees all rows at once, a client alone its own. Every model is the architecture `deep` with the settings of
configs/base.yaml.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processes import ROOT
from benchmarks.quality import served
from benchmarks.quality.protocols import Array, Rows, Split, Table, read
from benchmarks.quality.scores import Scores, scores

# Codes of the data set that make a client of each.
PARTITIONS = {
    "season": {"winter": (1,), "spring": (2,), "summer": (3,), "autumn": (4,)},
    "weathersit": {"clear": (1,), "mist": (2,), "rain or snow": (3, 4)},
}
TEST_SHARE = 0.2
# Of FedProx; Li et al. 2020 try 0.001 to 1.
PROXIMAL = 0.01
SECONDS = 1800.0


def split_of(table: Table) -> Split:
    """Return the first half's rows: the first four fifths train, the last fifth tests."""
    rows = np.flatnonzero(table["yr"] == 0)
    return Split(*np.split(rows, [int((1 - TEST_SHARE) * len(rows))]))


def client_rows(table: Table, train: Rows, column: str) -> dict[str, Rows]:
    """Return the places of each client's rows by its name; a client without rows is none."""
    found = {name: train[np.isin(table[column][train], codes)] for name, codes in PARTITIONS[column].items()}
    return {name: rows for name, rows in found.items() if len(rows)}


def write_uploads(content: bytes, rows: Mapping[str, Rows], folder: Path) -> dict[str, Path]:
    """Write each client's rows of the data set, whose lines are in the order of time, as a CSV file."""
    header, *lines = content.decode().splitlines()
    files = {name: folder / f"{name.replace(' ', '-')}.csv" for name in rows}
    for name, places in rows.items():
        files[name].write_text("\n".join([header, *(lines[place] for place in places)]) + "\n", encoding="utf-8")
    return files


def federate(
    python: str,
    uploads: Sequence[Path],
    folder: Path,
    port: int,
    options: Sequence[str],
    of_clients: Sequence[str] = (),
) -> Path:
    """Train with a server and a client for each upload, as processes, and return the folder of the model.

    `options` are further ones of the server, `of_clients` of each client.

    Raises:
        SystemExit: one of them failed, or did not end in time; what it said is told.
    """
    address, output = f"127.0.0.1:{port}", folder / "model"
    server = ["server", "--address", address, "--clients", str(len(uploads)), "--output", str(output), *options]
    commands = [server, *(["client", "--server", address, *of_clients, str(upload)] for upload in uploads)]
    logs = [folder / f"{place}.log" for place in range(len(commands))]
    processes = []
    try:
        for (module, *arguments), log in zip(commands, logs, strict=True):
            with log.open("wb") as file:
                command = [python, "-m", f"bike_pipeline.federated.{module}", *arguments]
                processes.append(subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT))
        ends = time.monotonic() + SECONDS
        while any(codes := [process.poll() for process in processes]) or None in codes:
            if any(codes) or time.monotonic() > ends:
                place = next((place for place, code in enumerate(codes) if code), 0)
                said = logs[place].read_text(encoding="utf-8", errors="replace")[-3000:]
                raise SystemExit(f"error: {' '.join(commands[place])} failed or did not end:\n{said}")
            time.sleep(0.2)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return output


def of_federation(folder: Path, rows: Mapping[str, Any]) -> Array:
    """Return what a federation's model answers to raw rows, in rentals an hour."""
    import keras

    from bike_pipeline.federated import server
    from bike_pipeline.federated.task import Task

    task = Task.from_text((folder / server.TASK_FILE).read_text(encoding="utf-8"))
    return task.answers(keras.saving.load_model(folder / server.MODEL_FILE, compile=False), rows)


def alone(own: Mapping[str, Any], rows: Mapping[str, Any], training: dict[str, Any], seed: int) -> Array:
    """Return what a model that is trained on raw rows of its own answers to others, in rentals an hour."""
    from bike_pipeline.modeling import preprocessing
    from bike_pipeline.modeling import training as trainer

    learnt = preprocessing.LearntSums.of(own).learnt()
    model, _ = trainer.train_transformed(preprocessing.transformed_columns(own, learnt), training, seed)
    columns = preprocessing.transformed_columns(rows, learnt)
    logarithm = model({tensor.name: columns[tensor.name] for tensor in model.inputs}, training=False)
    rentals: Array = np.maximum(np.expm1(np.asarray(logarithm, np.float64)), 0.0)
    return rentals


def table_of(found: Mapping[str, tuple[int, Scores]]) -> str:
    """Return the scores as a table in Markdown."""
    lines = ["| trained by | rows | RMSE | MAE | RMSLE | bias |", "|---|---|---|---|---|---|"]
    for name, (rows, own) in found.items():
        lines.append(f"| {name} | {rows:,} | {own.rmse:.1f} | {own.mae:.1f} | {own.rmsle:.3f} | {own.bias:+.1%} |")
    return "\n".join(lines)


def main() -> None:
    """Train in all ways, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has Flower (`make flower`)")
    parser.add_argument("--port", type=int, default=8095, help="on loopback (%(default)s)")
    parser.add_argument("--partitions", default=",".join(PARTITIONS), help="some of %(default)s")
    parser.add_argument("--options", default="", help="further options of the server, such as '--rounds 4'")
    parser.add_argument("--json", type=Path, help="file for all figures")
    args = parser.parse_args()
    if unknown := sorted(set(args.partitions.split(",")) - set(PARTITIONS)):
        raise SystemExit(f"error: {', '.join(unknown)} is no partition; there are {', '.join(PARTITIONS)}")
    from bike_pipeline.data.embedded_dataset import embedded_bytes
    from bike_pipeline.federated.task import columns_of
    from bike_pipeline.settings import load_settings

    content = embedded_bytes()
    table = read(content)
    settings = load_settings(assignments=("training.architecture=deep",))
    training = settings.training.model_dump(mode="json")
    split, raw = split_of(table), served.raw(table)
    test = {name: values[split.test] for name, values in raw.items()}
    label, found = table["cnt"][split.test], {}

    def take(name: str, rows: int, answers: Array) -> None:
        found[name] = rows, scores(label, answers)
        print(f"{name}: RMSE {found[name][1].rmse:.1f}", file=sys.stderr)

    central = {name: values[split.train] for name, values in raw.items()}
    take("all rows in one place", len(split.train), alone(central, test, training, settings.seed))
    with tempfile.TemporaryDirectory(prefix="bike-federated-") as name:
        for partition in args.partitions.split(","):
            folder = Path(name) / partition
            folder.mkdir()
            rows = client_rows(table, split.train, partition)
            uploads = write_uploads(content, rows, folder)
            for strategy, more in (("FedAvg", []), ("FedProx", ["--proximal-mu", str(PROXIMAL)])):
                place = folder / strategy
                place.mkdir()
                options = [*args.options.split(), *more]
                model = federate(args.python, list(uploads.values()), place, args.port, options)
                take(f"{strategy}, {len(rows)} clients by {partition}", len(split.train), of_federation(model, test))
            for client, upload in uploads.items():
                own = alone(columns_of(str(upload)), test, training, settings.seed)
                take(f"{client} alone", len(rows[client]), own)
    print(table_of(found))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        figures = {name: {"rows": rows, **asdict(own)} for name, (rows, own) in found.items()}
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
