"""The gateway on one machine: Envoy, an embedded server for each track, and routes that follow the promotion log.

A track gets requests while its server has its version AVAILABLE. So a server is started before the routes name it, and
stopped after Envoy has the routes that do not; the listener is never restarted.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bike_pipeline.errors import BikePipelineError, ConfigurationError, ServerError
from bike_pipeline.model_registry import ModelRegistry
from bike_pipeline.model_registry.deployment import STABLE
from bike_pipeline.rollout import tracks as rollout
from bike_pipeline.rollout.gateway import envoy, filters
from bike_pipeline.rollout.gateway.configuration import Files, Upstream, bootstrap, named
from bike_pipeline.rollout.gateway.routes import discovery_response, route_configuration
from bike_pipeline.rollout.tracks import Track
from bike_pipeline.serving.server.access import server_key
from bike_pipeline.storage.atomic_files import replace_file

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings

_log = logging.getLogger(__name__)
# Envoy takes new routes within milliseconds; if it does not, it refuses them.
_ROUTES_SECONDS = 5.0
# Bytes of the access log after which the next file begins; one older file is kept.
_LOG_BYTES = 256 * 1024 * 1024
# Envoy's threads come to new routes one after the other, after it has confirmed them.
_UNUSED_SECONDS = 2.0
# A server that dies is started again this long after its last start.
_RESTART_SECONDS = 5.0


class EmbeddedServer:
    """`bike-pipeline serve` of one label, on Unix sockets in a folder."""

    def __init__(self, label: str, folder: Path, settings: Settings) -> None:
        """Start it; it loads its version by itself."""
        folder.mkdir(mode=0o700, exist_ok=True)
        for left in folder.glob("*.sock"):
            left.unlink()
        self.began = time.monotonic()
        server = {"label": label, "version_policy": "promoted", "socket_folder": str(folder)}
        values = settings.model_dump(mode="json")
        values["serving"]["server"] |= server
        if label == rollout.SHADOW:
            # What it answers nobody was told, so it does not belong to what the monitor looks at.
            log = settings.request_log_path
            values["monitoring"]["request_log"]["path"] = str(log.with_name(f"{log.name}-{label}"))
        file = folder / "settings.yaml"
        file.write_text(json.dumps(values), encoding="utf-8")
        command = [sys.executable, "-m", "bike_pipeline.cli", "serve", "--json", "--config", str(file)]
        self._process = envoy.start_child(command, stdout=subprocess.PIPE)

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    @property
    def serves(self) -> bool:
        """Whether it said where it listens."""
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            return self.runs and bool(selector.select(0))

    def stop(self, seconds: float) -> None:
        """Let it answer what is under way, and end."""
        self._process.terminate()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


class Gateway:
    """A running gateway.

    Attributes:
        routed: the tracks that requests go to now.
    """

    def __init__(self, settings: Settings) -> None:
        """Start Envoy, which answers 503 until the stable version's server is there.

        Raises:
            ConfigurationError, MissingExtraError: there is no Envoy.
            ServerError: it does not start, or the served model is not in a local folder.
        """
        self._settings = settings
        binary = envoy.program(settings.gateway)
        if not settings.gateway.servers and "://" in settings.serving_path:
            raise ServerError(
                "embedded servers serve local folders",
                where=settings.serving_path,
                fix="mount the bucket and name its folder in serving.base_path, or name servers with --servers",
            )
        # A socket's path has at most 107 characters, which a workspace's may exceed.
        self._folder = Path(tempfile.mkdtemp(prefix="bike-gateway-"))
        self._upstreams = named(settings) or {label: Upstream.below(self._folder / label) for label in rollout.LABELS}
        self._servers: dict[str, EmbeddedServer] = {}
        # Since when no route names a server's label.
        self._unused: dict[str, float] = {}
        # Each in a folder of its own: Envoy reads a file again whatever is renamed beside it.
        places = {name: self._folder / name / f"{name}.json" for name in ("routes", "authentication")}
        self._files = Files(**places, secrets=self._folder / "secrets", admin=self._folder / "admin.sock")
        self._version = self._told = ""
        self._authentication: dict[str, Any] = {}
        self.routed: Mapping[str, Track] = {}
        self._access_log = settings.gateway_log_file
        try:
            for folder in (self._access_log.parent, settings.logs_path):
                folder.mkdir(parents=True, exist_ok=True)
            self._write_routes({}, 0)
            self._write_authentication()
            filters.check(settings.gateway)
            for name, secret in filters.secrets_of(settings.gateway).items():
                replace_file(self._files.secrets / f"{name}.json", json.dumps({"resources": [secret]}).encode())
            file = self._folder / "envoy.json"
            configuration = bootstrap(settings, self._upstreams, files=self._files, access_log=str(self._access_log))
            replace_file(file, json.dumps(configuration).encode(), mode=0o600)
            self._log = settings.logs_path / "gateway-envoy.log"
            self._envoy = envoy.Envoy(binary, file, self._files.admin, self._log, settings.gateway.drain_seconds)
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        self.port = self._envoy.port

    def look(self) -> str:
        """Bring servers and routes to what is promoted now, and return in words what is routed otherwise than before.

        What cannot be read leaves them as they are.
        """
        if self._envoy.exit_code is not None:
            raise ServerError(
                f"Envoy ended with exit code {self._envoy.exit_code}",
                where="gateway",
                fix=f"its log is {self._log}",
            )
        try:
            self._write_authentication()
        except ConfigurationError as error:
            # Half of a renewal must neither let anybody in nor lock everybody out.
            if str(error) != self._told:
                _log.error("the last good keys stay in force: %s", error)
            self._told = str(error)
        try:
            deployment = ModelRegistry(self._settings.serving_path).deployment()
            wanted = rollout.tracks(deployment, self._settings)
        except BikePipelineError as error:
            _log.error("what was routed goes on: %s", error)
            return ""
        embedded = not self._settings.gateway.servers
        if not wanted and not embedded:
            # Servers elsewhere may serve what this machine knows nothing of.
            wanted = {STABLE: Track(0, 100.0)}
        if embedded:
            self._start_servers(wanted)
        routed = {label: track for label, track in wanted.items() if self._answers(label, track)}
        # Without the version that answers everybody else, a part of the users would get answers and the rest none.
        routed = routed if STABLE in routed else {}
        changed = ""
        if self._write_routes(routed, deployment.revision if deployment else 0):
            self._confirm()
            shares = (f"{label} {track.share:g} % (version {track.version})" for label, track in routed.items())
            changed = ", ".join(shares) or "nothing"
        self.routed = routed
        self._stop_unused(wanted)
        self._rotate()
        return changed

    def _start_servers(self, wanted: Mapping[str, Track]) -> None:
        now = time.monotonic()
        for label in wanted:
            server = self._servers.get(label)
            if server is not None and not server.runs and now - server.began > _RESTART_SECONDS:
                _log.error("the server of %s ended; it is started again", label)
                server.stop(0)
                server = None
            if server is None:
                self._servers[label] = EmbeddedServer(label, self._folder / label, self._settings)

    def _stop_unused(self, wanted: Mapping[str, Track]) -> None:
        """Stop servers that no route names any more, some time after; a label that comes back finds its server."""
        now = time.monotonic()
        self._unused = {label: self._unused.get(label, now) for label in self._servers if label not in wanted}
        for label, since in self._unused.items():
            if now - since >= _UNUSED_SECONDS:
                self._servers.pop(label).stop(self._settings.serving.server.drain_seconds)
                _log.info("the server of %s is stopped", label)

    def _answers(self, label: str, track: Track) -> bool:
        """Return whether the server of a label has its version; `stable` may still answer with the one before."""
        if label not in self._upstreams:
            return False
        server = self._servers.get(label)
        if server is not None and not server.serves:
            return False
        if label == STABLE:
            return True
        address = self._upstreams[label].rest
        path = f"/v1/models/{self._settings.serving.model_name}/versions/{track.version}"
        try:
            if address.startswith("/"):
                content = envoy.asked(path, Path(address), seconds=2)
            else:
                key = server_key(self._settings.serving.server)
                headers = {"Authorization": f"Bearer {key}"} if key else {}
                context = filters.client_context(self._settings.gateway.server_tls)
                scheme = "https" if context else "http"
                asked = urllib.request.Request(f"{scheme}://{address}{path}", headers=headers)  # noqa: S310
                with urllib.request.urlopen(asked, timeout=2, context=context) as response:  # noqa: S310
                    content = response.read()
            states = [one["state"] for one in json.loads(content)["model_version_status"]]
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return states == ["AVAILABLE"]

    def _write_routes(self, tracks: Mapping[str, Track], revision: int) -> bool:
        """Let Envoy have routes; return whether they are others than before."""
        routes = route_configuration(tracks, revision, self._settings)
        version = hashlib.sha256(json.dumps(routes).encode()).hexdigest()[:16]
        if version == self._version:
            return False
        replace_file(self._files.routes, discovery_response(routes, version), mode=0o600)
        self._version = version
        return True

    def _write_authentication(self) -> None:
        """Let Envoy have the keys as they are now, if they are others than before."""
        if not self._settings.gateway.authentication.methods:
            return
        authentication = filters.authentication_of(self._settings)
        if authentication == self._authentication:
            return
        kind = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
        found = {"@type": kind, "name": filters.AUTHENTICATION, "typed_config": authentication}
        replace_file(self._files.authentication, json.dumps({"resources": [found]}).encode(), mode=0o600)
        if self._authentication:
            _log.info("the keys of clients changed")
        self._authentication = authentication

    def _confirm(self) -> None:
        """Wait until Envoy routes by what was written."""
        ends = time.monotonic() + _ROUTES_SECONDS
        while time.monotonic() < ends:
            try:
                if self._envoy.routes_version() == self._version:
                    return
            except OSError:
                break
            time.sleep(0.01)
        raise ServerError("Envoy does not take the new routes", where="gateway", fix=f"its log is {self._log}")

    def _rotate(self) -> None:
        try:
            if self._access_log.stat().st_size < _LOG_BYTES:
                return
            os.replace(self._access_log, self._access_log.with_name(f"{self._access_log.name}.1"))
            self._envoy.reopen_log()
        except OSError as error:
            # A pipe or a device is not rotated.
            _log.warning("%s: %s", self._access_log, error)

    def stop(self) -> None:
        """Answer what is under way, and end everything that was started."""
        self._envoy.drain()
        for server in self._servers.values():
            server.stop(self._settings.serving.server.drain_seconds)
        shutil.rmtree(self._folder, ignore_errors=True)


def run(settings: Settings, on_start: Callable[[Gateway], None]) -> None:
    """Route requests until SIGTERM or SIGINT, then drain and return; `on_start` is called when it first routes."""
    stopping = threading.Event()
    before = {number: signal.signal(number, lambda *_: stopping.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        gateway = Gateway(settings)
        try:
            started = False
            while not stopping.is_set():
                changed = gateway.look()
                if gateway.routed and not started:
                    on_start(gateway)
                    started = True
                if changed:
                    _log.info("routed: %s", changed)
                stopping.wait(settings.gateway.poll_seconds)
        finally:
            gateway.stop()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
