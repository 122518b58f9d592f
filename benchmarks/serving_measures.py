"""What is measured of a model server: throughput, latency, hot swaps, draining, memory."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.load import compiled, generators
from benchmarks.load.figures import Figures, Load
from benchmarks.load.measuring import measure, rows
from benchmarks.serving_processes import Served, wait_for
from bike_pipeline.model_registry import ModelRegistry, layout, model_signature
from bike_pipeline.serving.clients import ClientError, Connection, connect

# Rows of a request that is long enough to be under way when the server is told to stop.
_LONG_REQUEST = 20_000
_DRAIN_CLIENTS = 8


@dataclass(frozen=True)
class Round:
    """One load.

    Attributes:
        per_second: answers a second.
        p50: median latency in milliseconds.
        p90: latency that nine of ten requests did not exceed.
        p99: latency that 99 of 100 requests did not exceed.
        errors: requests without an answer.
        cpu: CPU milliseconds of the server for each answer, which a busy machine does not change.
    """

    per_second: float
    p50: float
    p90: float
    p99: float
    errors: int
    cpu: float


def _round(served: Served, make: Callable[[], Figures]) -> Round:
    before = served.cpu_seconds
    found = make()
    if not found.requests:
        raise SystemExit(f"error: {served.rest.where} answered nothing")
    cpu = 1000 * (served.cpu_seconds - before) / found.requests
    return Round(found.per_second, found.p50 or 0.0, found.p90 or 0.0, found.p99 or 0.0, found.errors, cpu)


def over_rest(served: Served, load: Load) -> Round:
    """Ask the embedded server with wrk."""
    return _round(served, lambda: measure(served.rest, load, "wrk"))


def over_grpc(served: Served, load: Load) -> Round:
    """Ask the embedded server with h2load."""
    return _round(served, lambda: measure(served.grpc, load, "h2load"))


def peer_over_rest(served: Served, load: Load) -> Round:
    """Ask a peer with wrk, the same bytes."""
    wrk = generators.find("wrk")
    assert wrk is not None
    with connect(served.rest) as client:
        exchange = replace(client.predict_request(rows(load.rows)), target="/predict")
    return _round(served, lambda: compiled.wrk(wrk, served.rest, exchange, load))


def peer_over_grpc(served: Served, load: Load) -> Round:
    """Ask a peer with h2load, the same bytes."""
    h2load = generators.find("h2load")
    assert h2load is not None
    with connect(served.grpc) as client:
        exchange = client.predict_request(rows(load.rows))
    return _round(served, lambda: compiled.h2load(h2load, served.grpc, exchange, load))


@dataclass
class Tally:
    """What became of requests.

    Attributes:
        answered: with predictions.
        failed: without, by the error's line.
        went_back: answers of an older version than one that this client has seen.
    """

    answered: int = 0
    failed: list[str] = field(default_factory=list)
    went_back: int = 0


def _asked_again_and_again(connection: Connection, stop: threading.Event, tally: Tally) -> None:
    """Ask over gRPC, one request after the other; look at who answers."""
    newest = 0
    with connect(connection) as client:
        exchange = client.predict_request(rows(1))
        while not stop.is_set():
            try:
                version = client.answer(replace(exchange, read=lambda response: response.model_spec.version.value))
            except ClientError as error:
                tally.failed.append(str(error))
                continue
            tally.answered += 1
            tally.went_back += version < newest
            newest = max(newest, version)


def _loaded_with_wrk(served: Served, stop: threading.Event, found: list[Figures]) -> None:
    while not stop.is_set():
        found.append(measure(served.rest, Load(connections=16, seconds=2), "wrk"))


@dataclass(frozen=True)
class Swaps:
    """Hot swaps under load.

    Attributes:
        swaps: versions that replaced another.
        rest: requests over REST.
        grpc: requests over gRPC.
        failed: of both, without an answer; each kind once.
        failures: how many.
        went_back: answers of an older version after a newer one.
        seconds: how long all of it took.
    """

    swaps: int
    rest: int
    grpc: int
    failed: tuple[str, ...]
    failures: int
    went_back: int
    seconds: float


def push(base: Path, model: Path, version: int) -> None:
    """Push a model that was pushed before under another version, with an unsigned manifest that names this one."""
    record = json.loads((model / layout.PUSH_FILE).read_text(encoding="utf-8"))

    def complete(folder: Path) -> None:
        model_signature.write(folder, model_signature.read(model, {}).evidence, None, version)

    ModelRegistry(base).add(model, version, record, complete)


def swaps(served: Served, base: Path, model: Path, number: int) -> Swaps:
    """Push one version after the other while both protocols are asked; each waits for the one before to serve.

    Args:
        served: the server that watches `base`.
        base: the model's base path.
        model: what is pushed, again and again.
        number: how many versions.
    """
    stop, tally, figures = threading.Event(), Tally(), list[Figures]()
    threads = [
        threading.Thread(target=_asked_again_and_again, args=(served.grpc, stop, tally)),
        threading.Thread(target=_loaded_with_wrk, args=(served, stop, figures)),
    ]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    newest, done = max(ModelRegistry(base).versions()), 0
    try:
        for version in range(newest + 1, newest + 1 + number):
            push(base, model, version)
            done += wait_for(served, version)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    errors = sum(one.errors for one in figures)
    failed = tuple(sorted(set(tally.failed)))
    return Swaps(
        done,
        sum(one.requests for one in figures),
        tally.answered,
        failed,
        errors + len(tally.failed),
        tally.went_back,
        time.monotonic() - began,
    )


@dataclass(frozen=True)
class Drained:
    """A server that was told to stop while requests were under way.

    Attributes:
        under_way: requests that were sent before SIGTERM and not answered yet.
        answered: of these.
        exit_code: of the server.
        seconds: from SIGTERM to its end.
    """

    under_way: int
    answered: int
    exit_code: int
    seconds: float


def drain(served: Served) -> Drained:
    """Send SIGTERM while long requests are under way over both protocols."""
    columns = rows(_LONG_REQUEST)
    sent: list[list[float]] = []
    stop = threading.Event()

    def client(connection: Connection) -> None:
        connection = replace(connection, rows_per_request=_LONG_REQUEST)
        with connect(connection) as asked:
            while not stop.is_set():
                times = [time.monotonic(), 0.0]
                sent.append(times)
                try:
                    asked.predict(columns)
                    times[1] = time.monotonic()
                except ClientError:
                    return

    connections = [served.rest, served.grpc] * (_DRAIN_CLIENTS // 2)
    threads = [threading.Thread(target=client, args=(connection,)) for connection in connections]
    for thread in threads:
        thread.start()
    time.sleep(2)
    # A moment earlier: what was written to a socket but not sent to the server yet cannot be under way there.
    told = time.monotonic()
    served.terminate()
    exit_code = served.process.wait(120)
    took = time.monotonic() - told
    stop.set()
    for thread in threads:
        thread.join()
    under_way = [(at, answered) for at, answered in sent if at < told - 0.1 and not 0 < answered < told]
    return Drained(len(under_way), sum(answered > 0 for _, answered in under_way), exit_code, took)


@dataclass(frozen=True)
class Memory:
    """Memory over many requests.

    Attributes:
        requests: answered so far, at each look.
        megabytes: resident memory at each look.
        errors: requests without an answer.
    """

    requests: tuple[int, ...]
    megabytes: tuple[float, ...]
    errors: int

    def at(self, share: float) -> float:
        """Return the memory after a share of all requests."""
        wanted = share * self.requests[-1]
        position = min(range(len(self.requests)), key=lambda i: abs(self.requests[i] - wanted))
        return self.megabytes[position]


def memory(served: Served, requests: int, shown: Callable[[str], None]) -> Memory:
    """Ask until so many requests were answered, and look at the server's memory all the time.

    Args:
        served: the server.
        requests: how many, at least.
        shown: called with a line from time to time.
    """
    counts, sizes, errors = [0], [served.megabytes], 0
    while counts[-1] < requests:
        figures = measure(served.rest, Load(connections=64, seconds=3), "wrk")
        counts.append(counts[-1] + figures.requests)
        sizes.append(served.megabytes)
        errors += figures.errors
        shown(f"{counts[-1]:,} of {requests:,} requests, {sizes[-1]:.0f} MB")
    return Memory(tuple(counts), tuple(sizes), errors)


def median(rounds: Sequence[Round], what: str) -> float:
    """Return the median of one attribute over rounds."""
    return float(statistics.median(getattr(one, what) for one in rounds))
