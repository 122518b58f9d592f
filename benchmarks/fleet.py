"""What a thousand cities cost: unit costs measured in this run, then a year of uploads played for every policy.

Measured, each by the product's own processes: CPU seconds of a run on a year of the embedded data, of an update by
labels, of a request; memory, files and cold start of a model, as the slope between few and many models of one
server, whose models are the served version under other names; bytes of a logged request. Everything else follows from
these by the arithmetic that is written below and in docs/scale.md.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.processes import ROOT, timed
from benchmarks.request_log import write_log
from bike_pipeline.data.embedded_dataset import embedded_bytes
from bike_pipeline.model_registry import ModelRegistry, layout, model_signature
from bike_pipeline.settings import load_settings

CITIES = (1, 10, 100, 1000)
VERSIONS, REQUESTS_A_DAY, DAYS, SEED = 5, 10_000, 365, 2012
LOGGED, ASKED = 20_000, 2_000
_TICKS = os.sysconf("SC_CLK_TCK")
_ROW = {
    "yr": 1, "mnth": 6, "hr": 8, "holiday": 0, "weekday": 5, "workingday": 1, "weathersit": 1,
    "temp": 0.6, "atemp": 0.58, "hum": 0.5, "windspeed": 0.2,
}  # fmt: skip
_BODY = json.dumps({"instances": [_ROW]})


@dataclass
class Units:
    """What was measured.

    Attributes:
        run: CPU seconds of a run on a year of hours.
        update: CPU seconds of a feedback update by a week of labels.
        version_mb: of a pushed version's files, exports included.
        cold_seconds: CPU seconds until one more model of a server answers.
        model_mb: resident memory of one more model.
        server_mb: of a server with none.
        request_ms: CPU milliseconds of a request of one row over REST, parsed, answered and written.
        logged_bytes: of a logged request, and `logged_gzip` packed.
    """

    run: float
    update: float
    version_mb: float
    cold_seconds: float
    model_mb: float
    server_mb: float
    request_ms: float
    logged_bytes: float
    logged_gzip: float


def _called(workspace: Path, *arguments: str) -> float:
    command = [sys.executable, "-m", "bike_pipeline.cli", *arguments, "--set", f"workspace={workspace}"]
    return timed(command, workspace.with_suffix(".log")).cpu


def _cpu(process: int) -> float:
    """Return the CPU seconds of a process and of those of its children that have ended, such as compilers."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS


def _memory(process: int) -> float:
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def fleet_of(base: Path, version: Path, count: int) -> Path:
    """Push a version under so many names, each with a manifest of its own; return the file that lists them."""
    # A copy is no push of the first one: its records are made anew.
    record = {"fingerprint": layout.fingerprint(version), "exports_fingerprint": layout.exports_fingerprint(version)}
    lines = []
    for number in range(count):
        registry = ModelRegistry(base / f"city-{number}")
        if not registry.versions():

            def complete(folder: Path) -> None:
                for name in layout.SIGNED_FILES:
                    (folder / name).unlink(missing_ok=True)
                model_signature.write(folder, {}, None, 1)

            registry.add(version, 1, record, complete)
        lines.append(f'config {{ name: "city-{number}" base_path: "{base / f"city-{number}"}" }}')
    listed = base / f"models-{count}.config"
    listed.write_text("model_config_list {\n" + "\n".join(lines) + "\n}\n", encoding="utf-8")
    return listed


def served(folder: Path, version: Path, count: int) -> tuple[float, float, float]:
    """Serve so many models; return CPU seconds until all answer, resident MB then, CPU milliseconds of a request."""
    listed = fleet_of(folder / "models", version, count)
    values: tuple[str, ...] = (
        f"workspace={folder / 'server'}",
        f"serving.server.models_config={listed}",
        "serving.base_path=models",
    )
    # Looking at every folder each second would count as the requests' work.
    values += ("serving.server.poll_seconds=1000", "serving.server.rest_port=0", "serving.server.grpc_port=0")
    command = [sys.executable, "-m", "bike_pipeline.cli", "serve", "--json"]
    command += [word for value in values for word in ("--set", value)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    assert process.stdout is not None
    try:
        told = json.loads(process.stdout.readline())
        if any(versions != [1] for versions in told["models"].values()):
            raise SystemExit(f"error: not every model is served; the log: {told['log']}")
        started = _cpu(process.pid)
        with contextlib.closing(http.client.HTTPConnection(told["rest"], timeout=60)) as connection:

            def ask(number: int) -> None:
                connection.request("POST", f"/v1/models/city-{number % count}:predict", _BODY)
                answer = connection.getresponse()
                if answer.read()[:1] != b"{" or answer.status != http.HTTPStatus.OK:
                    raise SystemExit(f"error: city-{number % count} does not answer; the log: {told['log']}")

            for number in range(count):
                ask(number)
            memory, before = _memory(process.pid), _cpu(process.pid)
            for number in range(ASKED):
                ask(number)
            return started, memory, (_cpu(process.pid) - before) / ASKED * 1000
    finally:
        process.terminate()
        process.wait(timeout=120)
        process.stdout.close()


def _say(what: str, value: float, unit: str) -> float:
    print(f"{time.strftime('%H:%M:%S')} {what}: {value:,.2f} {unit}", file=sys.stderr, flush=True)
    return value


def trainings(folder: Path) -> dict[str, float]:
    """Return what a run on a year costs, and an update by labels."""
    workspace = folder / "workspace"
    header, *lines = embedded_bytes().decode().splitlines()
    half = sum(line.split(",")[3] == "0" for line in lines)
    # On a machine with other work a version is no worse for answering late.
    late = ("--set", "serving.promotion.validation.latency_limit_ms=60000")
    run = _say("run on a year", _called(workspace, "run", "--demo", "first", *late), "CPU s")
    week = folder / "week.csv"
    week.write_text("\n".join([header, *lines[half : half + 168]]) + "\n", encoding="utf-8")
    update = _say("update by a week of labels", _called(workspace, "feedback", "update", str(week), *late), "CPU s")
    return {"run": run, "update": update}


def serving(folder: Path, workspace: Path, models: tuple[int, int]) -> dict[str, Any]:
    """Return what the version that serves in a workspace costs under many names, and what a logged request is."""
    registry = ModelRegistry(load_settings(None, (f"workspace={workspace}",)).serving_path)
    number = registry.serving()
    if number is None:
        raise SystemExit(f"error: no model is served in {workspace}: run `bike-pipeline run` first")
    version = registry.folder(number)
    size = sum(path.stat().st_size for path in version.rglob("*") if path.is_file()) / 1e6
    few, many = (served(folder, version, count) for count in models)
    more = models[1] - models[0]
    cold = _say("one more model", (many[0] - few[0]) / more, "CPU s until it answers")
    model_mb = _say("one more model", (many[1] - few[1]) / more, "MB")
    _say("a request", many[2], f"CPU ms with {models[1]} models, {few[2]:.2f} with {models[0]}")
    write_log(folder / "logs", LOGGED)
    content = b"".join(path.read_bytes() for path in sorted((folder / "logs").glob("*.jsonl")))
    return {
        "version_mb": size, "cold_seconds": cold, "model_mb": model_mb, "server_mb": few[1] - models[0] * model_mb,
        "request_ms": many[2], "logged_bytes": len(content) / LOGGED,
        "logged_gzip": len(gzip.compress(content, 6)) / LOGGED,
    }  # fmt: skip


def measure(folder: Path, workspace: Path, models: tuple[int, int]) -> Units:
    """Return the unit costs; CPU seconds and memory, so both halves are measured at the same time."""
    with ThreadPoolExecutor(2) as pool:
        asked = pool.submit(serving, folder, workspace, models), pool.submit(trainings, folder)
        return Units(**asked[0].result(), **asked[1].result())


def runs_of_a_year(policy: str, cities: int, least: int, generator: np.random.Generator) -> float:
    """Return the runs a day of all cities, over a year of daily uploads of which some come late, all at once."""
    waiting, last, runs = np.zeros(cities), np.full(cities, -1), 0
    for day in range(DAYS):
        waiting += 24.0
        arrived = generator.random(cities) > 0.05
        due = {
            "every upload": arrived,
            "each week": arrived & (day - last >= 7),
            f"{least} new rows": arrived & (waiting >= least),
        }[policy]
        runs += int(due.sum())
        waiting[due], last[due] = 0.0, day
    return runs / DAYS


def table(units: Units, least: int) -> list[str]:
    """Return the rows of the table of docs/scale.md."""
    lines = [
        "| | " + " | ".join(f"{cities:,} {'city' if cities == 1 else 'cities'}" for cities in CITIES) + " |",
        "|---" * (len(CITIES) + 1) + "|",
    ]

    def line(name: str, of: Any, digits: int = 1) -> None:
        lines.append(f"| {name} | " + " | ".join(f"{of(cities):,.{digits}f}" for cities in CITIES) + " |")

    line(f"registry, {VERSIONS} versions a city, GB", lambda c: c * VERSIONS * units.version_mb / 1000, 2)
    line("memory of servers, one model a city, GB", lambda c: (units.server_mb + c * units.model_mb) / 1000, 2)
    line("memory of a server, one model for all, GB", lambda _: (units.server_mb + units.model_mb) / 1000, 2)
    line("cold start of one server with all, CPU s", lambda c: c * units.cold_seconds)
    line(
        f"cores that answer {REQUESTS_A_DAY:,} requests a city and day",
        lambda c: c * REQUESTS_A_DAY * units.request_ms / 8.64e7,
        2,
    )
    for policy in ("every upload", "each week", f"{least} new rows"):
        runs = {cities: runs_of_a_year(policy, cities, least, np.random.default_rng(SEED)) for cities in CITIES}
        line(f"retraining, one model a city, {policy}: runs a day", runs.__getitem__, 2)
        line("… CPU hours a day", lambda c, runs=runs: runs[c] * units.run / 3600, 2)
    line("updates by labels each day, one model a city: CPU hours a day", lambda c: c * units.update / 3600, 2)
    line("one model for all, each week: CPU hours a day, at least", lambda _: units.run / 7 / 3600, 2)
    line("… at most, if a run costs by its rows alone", lambda c: c * units.run / 7 / 3600, 2)
    logged = REQUESTS_A_DAY * 30 / 1e9
    line("request logs of 30 days, GB", lambda c: c * logged * units.logged_bytes, 1)
    line("… packed, GB", lambda c: c * logged * units.logged_gzip, 1)
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, play, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", default="5,200", help="few and many models of one server")
    parser.add_argument("--workspace", type=Path, default=Path("workspace"), help="where a version is served")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    few, many = map(int, options.models.split(","))
    with tempfile.TemporaryDirectory(prefix="bike-pipeline-fleet-") as name:
        units = measure(Path(name), options.workspace.absolute(), (few, many))
    found = table(units, load_settings(None, ()).retraining.policy.least_new_rows)
    print(json.dumps(asdict(units), indent=2))
    print("\n".join(found))
    print(f"models a GB of memory: {1000 / units.model_mb:,.0f}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"units": asdict(units), "table": found}, indent=2), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
