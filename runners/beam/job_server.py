"""Beam's job servers for Flink and Spark: one that runs for as long as a run needs it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from bike_pipeline.errors import ConfigurationError, StageError, StorageError
from bike_pipeline.runners.beam import job_server_programs, keeper
from bike_pipeline.settings.beam import BeamSettings

_POLL_SECONDS = 0.2
# Flink and Spark reach into packages that Java 17 keeps closed; the list is that of their own start scripts.
_OPENED = (
    *("lang", "lang.invoke", "lang.reflect", "io", "net", "nio", "text", "time", "util", "util.concurrent"),
    *("util.concurrent.atomic", "util.concurrent.locks"),
)
_JVM_ARGUMENTS = (
    *(f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in _OPENED),
    "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
    "--add-exports=java.base/sun.net.util=ALL-UNNAMED",
)


def command(beam: BeamSettings, engine: str, jar: Path, port: int, staging: str) -> list[str]:
    """Return the command that starts an engine's job server on `port`, with its files in `staging`."""
    master = beam.flink.master if engine == "flink" else beam.spark.master
    return [
        beam.job_server.java, *_JVM_ARGUMENTS, "-jar", str(jar),
        f"--{engine}-master" if engine == "flink" else "--spark-master-url", master,
        "--job-host", "localhost", "--job-port", str(port), "--artifact-port", "0", "--expansion-port", "0",
        "--artifacts-dir", staging,
    ]  # fmt: skip


@contextlib.contextmanager
def running(beam: BeamSettings, engine: str, logs: Path) -> Iterator[str]:
    """Have a job server for an engine, and stop it at the end of the block if it was started for it.

    Args:
        beam: the settings; with `job_server.endpoint` the server there is used.
        engine: "flink", "spark" or "portable".
        logs: folder for the log of a server that is started.

    Yields:
        Its host:port.

    Raises:
        MissingExtraError: Java or the jar is missing.
        ConfigurationError: nothing answers at the endpoint.
        StageError: the server ended or did not answer in time.
        StorageError: its log cannot be written.
    """
    seconds = beam.job_server.start_seconds
    if beam.job_server.endpoint:
        if not _answers(beam.job_server.endpoint, seconds):
            raise ConfigurationError(
                f"no Beam job server answered within {seconds} s",
                where=f"beam.job_server.endpoint {beam.job_server.endpoint}",
                fix="start it, or correct host and port",
            )
        yield beam.job_server.endpoint
        return
    jar = job_server_programs.require(beam, engine)
    log = logs / f"job-server-{engine}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}.log"
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="beam-staging-", ignore_cleanup_errors=True) as staging:
        try:
            logs.mkdir(parents=True, exist_ok=True)
            output = log.open("wb")
        except OSError as error:
            raise StorageError(
                f"cannot write the log ({error.strerror or error})", where=str(log), fix="free space, grant permission"
            ) from None
        with output:
            server = subprocess.Popen(
                [sys.executable, str(keeper.__file__), *command(beam, engine, jar, port, staging)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            _await(server, f"localhost:{port}", seconds, log)
            yield f"localhost:{port}"
        finally:
            assert server.stdin is not None
            server.stdin.close()
            server.wait(keeper.STOP_SECONDS + 20)


def _await(server: subprocess.Popen[bytes], endpoint: str, seconds: float, log: Path) -> None:
    until = time.monotonic() + seconds
    while not _answers(endpoint, _POLL_SECONDS):
        if server.poll() is not None:
            last = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
            raise StageError(
                f"Beam's job server ended at once ({last[-1][:200] if last else 'it said nothing'})",
                where="beam",
                fix=f"its log is {log}",
            )
        if time.monotonic() > until:
            raise StageError(
                f"Beam's job server did not answer within {seconds:g} s",
                where="beam",
                fix=f"its log is {log}; beam.job_server.start_seconds gives it more time",
            )


def _answers(endpoint: str, seconds: float) -> bool:
    """Return whether a gRPC server answers at host:port within some seconds."""
    import grpc

    with grpc.insecure_channel(endpoint) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=seconds)
        except grpc.FutureTimeoutError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])
