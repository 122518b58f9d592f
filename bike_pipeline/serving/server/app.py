"""The server: both APIs in one process and one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import uvloop
from aiohttp import web
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from bike_pipeline.errors import ConfigurationError, ServerError
from bike_pipeline.exporting.formats import registry
from bike_pipeline.model_registry import signing
from bike_pipeline.serving.server import access
from bike_pipeline.serving.server.answering import Answering
from bike_pipeline.serving.server.batching import Resources
from bike_pipeline.serving.server.calls import CallInterceptor, grpc_options
from bike_pipeline.serving.server.grpc_services import MODEL_SERVICE, PREDICTION_SERVICE, GrpcApi
from bike_pipeline.serving.server.http import Draining, runner_of
from bike_pipeline.serving.server.metrics import Metrics
from bike_pipeline.serving.server.model_versions import ModelConfig, ModelVersions
from bike_pipeline.serving.server.openapi import document
from bike_pipeline.serving.server.parsing import Parsing
from bike_pipeline.serving.server.request_log import RequestLog
from bike_pipeline.serving.server.rest import RestApi
from bike_pipeline.serving.statuses import StatusError

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings

_log = logging.getLogger(__name__)
# Objects that came and did not go before the collector looks at them; Python's 700 are reached by a few requests.
_COLLECT_AFTER = 5_000


class Server:
    """A running server; the ports are those that it listens on."""

    def __init__(self, settings: Settings) -> None:
        """Prepare a server; nothing listens yet. A `ConfigurationError` tells what it cannot be started with."""
        if "://" in settings.serving_path:
            raise ServerError(
                "the embedded server serves local folders",
                where=settings.serving_path,
                fix="mount the bucket and name its folder in serving.base_path, or let TF Serving serve it",
            )
        self._settings = settings
        self._server = settings.serving.server
        if self._server.rest_port == self._server.grpc_port != 0:
            raise ConfigurationError(
                f"both APIs would listen on port {self._server.rest_port}",
                where="serving.server.rest_port, serving.server.grpc_port",
                fix="give each a port of its own; 0 takes a free one",
            )
        for name in self._server.backends:
            if name not in registry.names():
                raise ConfigurationError(
                    f"there is no export format '{name}'",
                    where="serving.server.backends",
                    fix=f"choose among {', '.join(registry.names())}",
                )
        # An unsound key is told before anything is loaded.
        key = access.server_key(self._server)
        access.check_exposure(self._server, key)
        signing.use(settings)
        signing.trusted_keys(without_own=True)
        loading, answering = ThreadPoolExecutor(1, "loading"), ThreadPoolExecutor(1, "answering")
        self._resources = Resources(self._server, loading, answering, Metrics())
        self.versions = ModelVersions(self._resources, self._set_health)
        self._parsing = Parsing(self._server.request_timeout_seconds)
        metrics, kept = self._resources.metrics, settings.monitoring.request_log
        self._request_log: RequestLog | None = None
        if kept.enabled:
            place = settings.request_log_path.absolute()
            self._request_log = RequestLog(kept, place, metrics, self._server.request_timeout_seconds)
        answers = Answering(self.versions, metrics, self._parsing, self._server.limits, self._request_log)
        page = None
        if self._server.ui:
            # Other servers do without what renders it.
            from bike_pipeline.serving.server.ui import Ui

            page = Ui(settings, self.versions)
        rest_api = RestApi(answers, self._server.metrics, document(settings), page)
        self._grpc_api = GrpcApi(answers)
        self._draining = Draining()
        self._runner = runner_of(self._server, key, self._draining, rest_api.handle)
        self._grpc = grpc.aio.server(
            interceptors=[CallInterceptor(key, access.model_roots(settings))],
            options=[
                *grpc_options(),
                # TF Serving takes messages of any size; we take what the REST API takes.
                ("grpc.max_receive_message_length", self._server.max_request_bytes),
                ("grpc.max_send_message_length", -1),
                # Two servers on one port would share its clients by chance.
                ("grpc.so_reuseport", 0),
            ],
        )
        self._grpc.add_generic_rpc_handlers(self._grpc_api.handlers())
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        self.rest_port = self.grpc_port = 0

    async def start(self) -> None:
        """Listen, and serve what is there; a `ServerError` says that a port is taken."""
        server, model, place = self._server, self._settings.serving.model_name, Path(self._settings.serving_path)
        chosen = (server.version_policy, server.latest_versions, server.specific_versions, server.labels)
        config = ModelConfig(model, place, *chosen, only_label=server.label)
        try:
            if server.models_config:
                await self.versions.follow(Path(server.models_config).expanduser())
            else:
                await self.versions.configure([config])
        except StatusError as error:
            # A broken version is no reason to stop: it is told by the status, and the next one may serve.
            _log.error("%s", error.message)
            if not self.versions.models:
                where, fix = "serving.server.models_config", "write a ModelServerConfig, as TF Serving reads it"
                raise ConfigurationError(error.message, where=where, fix=fix) from None
        # Whoever can connect finds what there is, as with TF Serving.
        try:
            await self._start_grpc()
            await self._start_rest()
        except BaseException:
            await self._close(drain_seconds=0.0)
            raise
        await self._set_health(self.versions.ready)
        self._watching = asyncio.ensure_future(self.versions.watch())
        if self._request_log:
            self._logging = asyncio.ensure_future(self._request_log.run())

    async def stop(self) -> None:
        """Refuse new requests, answer those under way, let go of the models."""
        self._watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._watching
        await self._set_health(False)
        # Nobody new over REST, and whoever is there is told; then the same over gRPC, which cannot tell.
        await self._site.stop()
        self._draining.now = True
        await self._grpc_api.drain()
        await self._close(self._server.drain_seconds)
        if self._request_log:
            await self._request_log.stop(self._logging)

    async def _close(self, drain_seconds: float) -> None:
        await asyncio.gather(self._grpc.stop(drain_seconds), self._runner.cleanup())
        await self.versions.stop()
        self._resources.loading.shutdown()
        self._resources.answering.shutdown()
        self._parsing.close()

    async def _start_grpc(self) -> None:
        await self._set_health(False)
        address = address_of(self._server.host, self._server.grpc_port)
        if self._server.socket_folder:
            address = f"unix:{self._socket('grpc')}"
        try:
            self.grpc_port = self._grpc.add_insecure_port(address)
        except RuntimeError:
            raise _cannot_listen(address, "serving.server.grpc_port") from None
        await self._grpc.start()

    async def _start_rest(self) -> None:
        host, port = self._server.host, self._server.rest_port
        await self._runner.setup()
        if self._server.socket_folder:
            self._site: web.BaseSite = web.UnixSite(self._runner, self._socket("rest"))
        else:
            self._site = web.TCPSite(self._runner, host, port)
        try:
            await self._site.start()
        except OSError as error:
            address = self._server.socket_folder or address_of(host, port)
            raise _cannot_listen(address, "serving.server.rest_port", error.errno) from None
        if not self._server.socket_folder:
            self.rest_port = self._runner.addresses[0][1]

    def _socket(self, api: str) -> str:
        return str(Path(self._server.socket_folder).expanduser().absolute() / f"{api}.sock")

    async def _set_health(self, serving: bool) -> None:
        state = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", PREDICTION_SERVICE, MODEL_SERVICE):
            await self._health.set(service, state)


def address_of(host: str, port: int) -> str:
    """Return host and port as one text, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _cannot_listen(address: str, setting: str, number: int | None = None) -> ServerError:
    # gRPC does not say why.
    reason = os.strerror(number) if number else "the port is taken or the address is not this machine's"
    return ServerError(f"cannot listen ({reason})", where=address, fix=f"choose another port: --set {setting}=0")


def run(settings: Settings, on_start: Callable[[Server], None]) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return; `on_start` is called when what is there serves."""

    async def serve() -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        server = Server(settings)
        await server.start()
        # What was imported lives as long as the process; the collector need not look through it again and again.
        gc.collect()
        gc.freeze()
        # Nor through what a hundred requests under way hold: nearly all of it goes by its count of references.
        gc.set_threshold(_COLLECT_AFTER, 20, 20)
        on_start(server)
        await stopping.wait()
        await server.stop()

    uvloop.run(serve())
