"""Load from wrk and h2load, whose own work a server on the same machine hardly notices."""

from __future__ import annotations

import json
import math
import os
import re
import struct
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.load.figures import Figures, Load, percentiles
from benchmarks.load.generators import Generator
from bike_pipeline.errors import ServerError
from bike_pipeline.serving.clients import Client, Connection, connect
from bike_pipeline.serving.clients.core import Exchange

# How long a generator may take beyond the load itself, in seconds.
_SLACK = 60
# wrk waits so long for an answer, in seconds; its own 2 seconds would count slow answers of a busy server as lost.
_WRK_TIMEOUT = 30
_SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = %s
local every = %f
if every > 0 then
  local ffi = require("ffi")
  ffi.cdef("typedef struct { long s; long ns; } moment; int clock_gettime(int, moment*);")
  local read = ffi.new("moment")
  local now = function()
    ffi.C.clock_gettime(1, read)
    return tonumber(read.s) * 1000 + tonumber(read.ns) / 1e6
  end
  local due = nil
  delay = function()
    local at = now()
    due = (due or at) + every
    return math.max(0, math.floor(due - at + math.random()))
  end
end
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\nREPORT {"requests": %%d, "status": %%d, "lost": %%d, "microseconds": %%d, ',
    summary.requests, e.status, e.connect + e.read + e.write + e.timeout, summary.duration))
  io.write(string.format('"p50": %%f, "p90": %%f, "p99": %%f}\\n',
    latency:percentile(50), latency:percentile(90), latency:percentile(99)))
end
"""


def wrk(generator: Generator, connection: Connection, exchange: Exchange[Any], load: Load) -> Figures:
    """Ask over REST, as often as there are answers or at a rate.

    At a rate, whichever client is free sends the next request when it is due, to about a millisecond; one that is late
    since all clients wait is sent as soon as one is free, and its latency counts from then.

    Args:
        generator: wrk.
        connection: a server without TLS.
        exchange: the request.
        load: how many clients, how long, and how often.

    Raises:
        ServerError: wrk failed.
    """
    with tempfile.TemporaryDirectory(prefix="bike-pipeline-load-") as name:
        script = Path(name) / "report.lua"
        # Long brackets take any text but their own end.
        every = 0.0 if load.rate is None else 1000 * _threads(load) / load.rate
        script.write_text(_SCRIPT % (f"[====[{exchange.body.decode()}]====]", every), encoding="utf-8")
        command = [str(generator.program), "--threads", str(_threads(load)), "--connections", str(load.connections)]
        command += ["--duration", f"{math.ceil(load.seconds)}s", "--timeout", f"{_WRK_TIMEOUT}s"]
        command += ["--script", str(script), f"http://{connection.authority}{exchange.target}"]
        said = _run(generator, command, load)
    found = re.search(r"^REPORT (\{.*\})$", said, re.MULTILINE)
    if found is None:
        raise ServerError("wrk told no figures", where=connection.where, fix="try again, or use --generator python")
    report = json.loads(found[1])
    answered = report["requests"] - report["status"]
    latencies = tuple(report[name] / 1000 if answered else None for name in ("p50", "p90", "p99"))
    return Figures("wrk", answered, report["status"] + report["lost"], report["microseconds"] / 1e6, *latencies)


def h2load(generator: Generator, connection: Connection, exchange: Exchange[Any], load: Load) -> Figures:
    """Ask over gRPC or REST, as often as there are answers or at a rate, to which all clients keep in step.

    A gRPC error has HTTP status 200, too, but no message: the bytes of all messages tell how many there were.

    Args:
        generator: h2load.
        connection: a server without TLS.
        exchange: the request.
        load: how many clients, how long, and how often.

    Raises:
        ServerError: h2load failed, or another version began to answer meanwhile.
    """
    with tempfile.TemporaryDirectory(prefix="bike-pipeline-load-") as name:
        body, log = Path(name) / "body", Path(name) / "log"
        grpc = connection.protocol == "grpc"
        command = [str(generator.program), "--threads", str(_threads(load)), "--clients", str(load.connections)]
        command += ["--duration", f"{math.ceil(load.seconds)}s", "--data", str(body), "--log-file", str(log)]
        if load.rate is not None:
            command += ["--rps", f"{load.rate / load.connections:.6f}"]
        if grpc:
            path = f"/tensorflow.serving.{exchange.target}/{exchange.method}"
            command += ["--header", "content-type: application/grpc", "--header", "te: trailers"]
            message = exchange.body.SerializeToString()
            # gRPC over HTTP/2: one byte for "not compressed", the length, the message.
            body.write_bytes(b"\0" + struct.pack(">I", len(message)) + message)
        else:
            path = exchange.target
            command += ["--h1", "--header", "content-type: application/json"]
            body.write_bytes(exchange.body)
        command.append(f"http://{connection.authority}{path}")
        with connect(connection) as client:
            length = _length(client, exchange) if grpc else 0
            said = _run(generator, command, load)
            if grpc and _length(client, exchange) != length:
                raise ServerError(
                    "another version began to answer, so that nobody knows which answers were errors",
                    where=connection.where,
                    fix="measure again",
                )
        text = log.read_text(encoding="utf-8") if log.exists() else ""
        answered = [line.split("\t") for line in text.splitlines()]
    took, started, done, good, data = _summary(said, connection.where)
    milliseconds = [int(line[2]) / 1000 for line in answered if line[1] == "200"]
    good = min(good, data // (length + 5)) if grpc else good
    # Those that were under way when the time was over are neither.
    lost = max(0, started - done - load.connections)
    return Figures("h2load", good, done - good + lost, took, *percentiles(milliseconds if good else []))


def _length(client: Client, exchange: Exchange[Any]) -> int:
    """Return the bytes of the message that answers a gRPC request."""
    sized: Exchange[int] = replace(exchange, read=lambda response: int(response.ByteSize()))
    return client.answer(sized)


def _summary(said: str, where: str) -> tuple[float, int, int, int, int]:
    """Return seconds, requests that were started, done and answered with status 2xx, and bytes of all bodies."""
    took = re.search(r"^finished in ([\d.]+)(us|ms|s|min),", said, re.MULTILINE)
    counts = re.search(r"^requests: (\d+) total, (\d+) started, (\d+) done", said, re.MULTILINE)
    good = re.search(r"^status codes: (\d+) 2xx", said, re.MULTILINE)
    data = re.search(r"\((\d+)\) data$", said, re.MULTILINE)
    if not (took and counts and good and data):
        raise ServerError("h2load told no figures", where=where, fix="try again, or use --generator python")
    units = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0}
    seconds = float(took[1]) * units[took[2]]
    return seconds, int(counts[2]), int(counts[3]), int(good[1]), int(data[1])


def _threads(load: Load) -> int:
    # Half of the processors are left to a server on the same machine.
    return max(1, min(load.connections, (os.cpu_count() or 1) // 2))


def _run(generator: Generator, command: list[str], load: Load) -> str:
    try:
        done = subprocess.run(
            command,
            env=dict(generator.environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=load.seconds + _SLACK,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServerError(f"{generator.name} failed ({error})", fix="use --generator python") from None
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        raise ServerError(f"{generator.name} failed ({lines[-1]})", fix="use --generator python")
    return done.stdout
