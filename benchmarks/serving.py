"""The embedded server against FastAPI with the same LiteRT file, and against its own stacks answering a constant.

Load comes from wrk and h2load on the same machine (`make load-generators`). The servers take turns, round by round, so
that a machine that gets slower slows all. Every goal of speed is a ratio of figures of this run, so that it means the
same on any machine. Exit code 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import plots, serving_measures
from benchmarks.load import generators
from benchmarks.load.figures import Load
from benchmarks.processes import timed
from benchmarks.serving_measures import Drained, Memory, Round, Swaps, median
from benchmarks.serving_processes import MODEL, embedded, peer
from bike_pipeline.model_registry import ModelRegistry, layout
from bike_pipeline.serving.server.backends import SAVED_MODEL

# One row a request. How many times as many answers as FastAPI gives with the same LiteRT file and orjson, and as our
# own stacks give where they read the request and answer a constant: half of that leaves as much to us as to them.
FASTAPI_GOAL, STACK_GOAL = 3.0, 0.5
# A lone client's median wait, in that of one that gets a constant; the 99th percentile at half of the peak rate, in
# that at the peak.
SINGLE_GOAL, HALF_GOAL = 5.0, 1.0
# The 99th percentile with the request log, in that without, at half of the peak rate, in turns.
LOG_GOAL = 1.1
SWAPS_GOAL = 100
# Memory counts as flat where it grows by at most so much from a tenth of the requests to all of them.
MEMORY_GOAL = 0.05
MILLION = 1_000_000
_LOADS = ("rest", "fastapi", "constant", "single", "constant_single", "half", "unlogged", "grpc", "constant_grpc")


@dataclass(frozen=True)
class Measured:
    """What was measured; one entry a round where there is a list.

    Attributes:
        backend: the format that answered.
        busy: processes that wanted a processor before anything was started, of this machine's last minute.
        rest: the embedded server over REST, 64 clients.
        fastapi: FastAPI with the same file.
        constant: aiohttp answering a constant.
        single: the embedded server over REST, one client.
        constant_single: aiohttp answering a constant, one client.
        half: the embedded server over REST, at half of its peak rate.
        unlogged: the same without a request log, in turns with it.
        grpc: the embedded server over gRPC, 64 clients.
        constant_grpc: grpc.aio answering a constant.
        swaps: hot swaps under load.
        memory: memory over many requests.
        drained: what became of requests under way at SIGTERM.
    """

    backend: str
    busy: float
    rest: list[Round]
    fastapi: list[Round]
    constant: list[Round]
    single: list[Round]
    constant_single: list[Round]
    half: list[Round]
    unlogged: list[Round]
    grpc: list[Round]
    constant_grpc: list[Round]
    swaps: Swaps
    memory: Memory
    drained: Drained


@dataclass(frozen=True)
class Goal:
    """A goal and what was measured.

    Attributes:
        what: what it is about.
        wanted: the limit, in words.
        measured: the figure, in words.
        met: whether it is met.
    """

    what: str
    wanted: str
    measured: str
    met: bool


def ratios(ours: Sequence[Round], others: Sequence[Round], what: str = "per_second") -> list[float]:
    """Return a figure of ours in that of another, round by round."""
    return [getattr(mine, what) / getattr(other, what) for mine, other in zip(ours, others, strict=True)]


def _times(found: Sequence[float]) -> tuple[float, str]:
    ratio = statistics.median(found)
    return ratio, f"{ratio:.2f} ×"


def goals(measured: Measured) -> list[Goal]:
    """Hold what was measured against the goals."""
    fastapi, fastapi_said = _times(ratios(measured.rest, measured.fastapi))
    stack, stack_said = _times(ratios(measured.rest, measured.constant))
    grpc, grpc_said = _times(ratios(measured.grpc, measured.constant_grpc))
    single, single_said = _times(ratios(measured.single, measured.constant_single, "p50"))
    half = median(measured.half, "p99") / median(measured.rest, "p99")
    rate = median(measured.half, "per_second")
    log, log_said = _times(ratios(measured.half, measured.unlogged, "p99"))
    swaps, drained, memory = measured.swaps, measured.drained, measured.memory
    tenth, end = memory.at(0.1), memory.at(1.0)
    errors = sum(one.errors for one in (*measured.rest, *measured.grpc, *measured.single, *measured.half))
    return [
        Goal("REST / FastAPI, same file", f"≥ {FASTAPI_GOAL:g} ×", fastapi_said, fastapi >= FASTAPI_GOAL),
        Goal("REST / aiohttp's constant", f"≥ {STACK_GOAL:g} ×", stack_said, stack >= STACK_GOAL),
        Goal("gRPC / grpc.aio's constant", f"≥ {STACK_GOAL:g} ×", grpc_said, grpc >= STACK_GOAL),
        Goal("one client, p50 / the constant's", f"≤ {SINGLE_GOAL:g} ×", single_said, single <= SINGLE_GOAL),
        Goal(
            "p99 at half of the peak / at it", f"≤ {HALF_GOAL:g} ×", f"{half:.2f} × at {rate:,.0f}/s", half <= HALF_GOAL
        ),
        Goal("p99 with the request log / without", f"≤ {LOG_GOAL:g} ×", log_said, log <= LOG_GOAL),
        Goal("requests without an answer", "0", f"{errors:,}", errors == 0),
        Goal(
            "hot swaps under load",
            f"{SWAPS_GOAL}, 0 failed",
            f"{swaps.swaps}, {swaps.failures + swaps.went_back} failed of {swaps.rest + swaps.grpc:,}",
            swaps.swaps >= SWAPS_GOAL and swaps.failures == 0 and swaps.went_back == 0,
        ),
        Goal(
            "SIGTERM drains",
            "all answered, exit code 0",
            f"{drained.answered} of {drained.under_way}, exit code {drained.exit_code}",
            0 < drained.under_way == drained.answered and drained.exit_code == 0,
        ),
        Goal(
            f"memory over {memory.requests[-1]:,} requests",
            f"grows by at most {MEMORY_GOAL:.0%}",
            f"{tenth:.0f} → {end:.0f} MB",
            end <= tenth * (1 + MEMORY_GOAL) and memory.errors == 0,
        ),
    ]


def table(found: Sequence[Goal]) -> str:
    """Return the goals as text."""
    lines = [f"{'goal':34s} {'wanted':>26s} {'measured':>30s}"]
    lines.extend(f"{g.what:34s} {g.wanted:>26s} {g.measured:>30s}  {'met' if g.met else 'MISSED'}" for g in found)
    return "\n".join(lines)


def rounds_table(measured: Measured) -> str:
    """Return the figures of every round as text."""
    lines = [f"{'':26s}{'requests/s':>12s}{'p50 ms':>9s}{'p90 ms':>9s}{'p99 ms':>9s}{'errors':>8s}{'CPU ms each':>13s}"]
    named = {
        "REST, 64 clients": measured.rest,
        "FastAPI, same file": measured.fastapi,
        "aiohttp, a constant": measured.constant,
        "REST, one client": measured.single,
        "a constant, one client": measured.constant_single,
        "REST, half of the peak": measured.half,
        "the same without its log": measured.unlogged,
        "gRPC, 64 clients": measured.grpc,
        "grpc.aio, a constant": measured.constant_grpc,
    }
    lines.extend(
        f"{name:26s}{one.per_second:12,.0f}{one.p50:9.2f}{one.p90:9.2f}{one.p99:9.2f}{one.errors:8,d}{one.cpu:13.3f}"
        for name, rounds in named.items()
        for one in rounds
    )
    return "\n".join(lines)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _model(workspace: Path | None, folder: Path) -> Path:
    """Return a pushed model: of a workspace, or of a run of the pipeline that is made now."""
    if workspace is None:
        _say("a run of the pipeline …")
        workspace = folder / "workspace"
        command = [
            sys.executable,
            "-m",
            "bike_pipeline.cli",
            "run",
            "--demo",
            "first",
            "--set",
            f"workspace={workspace}",
        ]
        timed(command, folder / "run.log")
    base = workspace / "serving" / MODEL
    versions = ModelRegistry(base).versions()
    if not versions:
        raise SystemExit(f"error: no model is served in {base}")
    return base / str(versions[-1])


def measure(model: Path, folder: Path, rounds: int, seconds: float, requests: int) -> Measured:
    """Measure everything.

    Args:
        model: folder of the pushed model.
        folder: where servers write.
        rounds: how often each load is made.
        seconds: how long each load is.
        requests: how many of them memory is watched over.
    """
    busy = os.getloadavg()[0]
    base = folder / "base" / MODEL
    serving_measures.push(base, model, 1)
    found: dict[str, list[Round]] = {name: [] for name in _LOADS}
    many, one = Load(connections=64, seconds=seconds), Load(connections=1, seconds=seconds)
    with embedded(base.parent, folder / "server") as served:
        backend = served.backends["serving_default"]
        if backend == SAVED_MODEL:
            raise SystemExit(f"error: no export of {model} answers, and a SavedModel is no fair comparison")
        export = base / "1" / layout.EXPORTS_FOLDER / backend
        with peer("fastapi", export) as fastapi, peer("aiohttp", export) as aiohttp, peer("grpc", export) as grpc:
            asked: dict[str, Callable[[Load], Round]] = {
                "rest": lambda load: serving_measures.over_rest(served, load),
                "fastapi": lambda load: serving_measures.peer_over_rest(fastapi, load),
                "constant": lambda load: serving_measures.peer_over_rest(aiohttp, load),
                "grpc": lambda load: serving_measures.over_grpc(served, load),
                "constant_grpc": lambda load: serving_measures.peer_over_grpc(grpc, load),
            }
            for warmed in asked.values():
                warmed(Load(connections=64, seconds=1))
            for number in range(1, rounds + 1):
                _say(f"round {number} of {rounds} …")
                for name, ask in asked.items():
                    found[name].append(ask(many))
                found["single"].append(asked["rest"](one))
                found["constant_single"].append(asked["constant"](one))
        rate = median(found["rest"], "per_second") / 2
        at_half = Load(connections=64, seconds=seconds, rate=rate)
        with embedded(base.parent, folder / "unlogged", "monitoring.request_log.enabled=false") as unlogged:
            serving_measures.over_rest(unlogged, Load(connections=64, seconds=1))
            for number in range(rounds):
                turn = {"half": served, "unlogged": unlogged}
                for name in sorted(turn, reverse=bool(number % 2)):
                    found[name].append(serving_measures.over_rest(turn[name], at_half))
        _say(f"{SWAPS_GOAL} hot swaps …")
        swapped = serving_measures.swaps(served, base, model, SWAPS_GOAL)
        memory = serving_measures.memory(served, requests, _say)
        drained = serving_measures.drain(served)
    return Measured(backend=backend, busy=busy, swaps=swapped, memory=memory, drained=drained, **found)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, draw, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workspace", type=Path, help="serve the model of this workspace (default: of a run made now)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each load (default 3)")
    parser.add_argument("--seconds", type=int, default=5, help="seconds of each load (default 5)")
    parser.add_argument("--requests", type=int, default=300_000, help="requests to watch memory over (default 300,000)")
    parser.add_argument("--million", action="store_true", help="watch memory over a million requests")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--plot", type=Path, help="draw throughput, latency and memory into this PNG file")
    options = parser.parse_args(arguments)
    if min(options.rounds, options.seconds, options.requests) < 1:
        parser.error("--rounds, --seconds and --requests must be at least 1")
    missing = [name for name in ("wrk", "h2load") if generators.find(name) is None]
    if missing:
        raise SystemExit(f"error: {' and '.join(missing)} not there; fetch them by: make load-generators")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bike-pipeline-serving-") as name:
        folder = Path(name)
        model = _model(options.workspace, folder)
        requests = MILLION if options.million else options.requests
        measured = measure(model, folder, options.rounds, options.seconds, requests)
    found = goals(measured)
    print(rounds_table(measured), "", sep="\n")
    print(table(found))
    print(f"\n{measured.backend} answered; all of it took {time.monotonic() - began:.0f} s")
    if measured.busy > (os.cpu_count() or 1) / 2:
        print(f"other processes kept the machine busy (load {measured.busy:.1f}): only ratios and CPU times hold")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        content = {**asdict(measured), "goals": [asdict(goal) for goal in found]}
        options.json.write_text(json.dumps(content, indent=2), encoding="utf-8")
    if options.plot:
        plots.draw_serving(measured, options.plot)
    return 0 if all(goal.met for goal in found) else 1


if __name__ == "__main__":
    sys.exit(main())
