"""Both protocols before handlers that do next to nothing: what stands before handlers shows without a model."""

from __future__ import annotations

import asyncio
import contextlib

import grpc
from aiohttp import web
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tensorflow_serving.apis import model_management_pb2, model_service_pb2_grpc
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusResponse

from bike_pipeline.serving.server.access import model_roots, server_key
from bike_pipeline.serving.server.calls import CallInterceptor, grpc_options
from bike_pipeline.serving.server.http import BODY, Draining, runner_of
from bike_pipeline.settings import load_settings

SECRET = "a secret of the inside"
# The only path of a body.
MANY = "/v1/models/many:predict"


def settings_of(tmp_path, *assignments):
    return load_settings(None, (f"workspace={tmp_path}", *(f"serving.server.{each}" for each in assignments)))


class Service(model_service_pb2_grpc.ModelServiceServicer):
    async def GetModelStatus(self, request, context):  # noqa: N802 (gRPC's name)
        if request.model_spec.name == "fail":
            raise KeyError(SECRET)
        if request.model_spec.name == "none":
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such model")
        return GetModelStatusResponse()

    async def HandleReloadConfigRequest(self, request, context):  # noqa: N802 (gRPC's name)
        return model_management_pb2.ReloadConfigResponse()


async def _rest(request):
    if request.path == "/fail":
        raise KeyError(SECRET)
    if request.path == MANY:
        return web.json_response({"bytes": len(request.get(BODY, b""))})
    return web.json_response({"path": request.path})


@contextlib.asynccontextmanager
async def serving(settings):
    """Start both; yield the addresses host:port of REST and gRPC."""
    key = server_key(settings.serving.server)
    runner = runner_of(settings.serving.server, key, Draining(), _rest)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server = grpc.aio.server(interceptors=[CallInterceptor(key, model_roots(settings))], options=grpc_options())
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(Service(), server)
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}", f"127.0.0.1:{port}"
    finally:
        await server.stop(0)
        await runner.cleanup()


def run(coroutine):
    """Run a test's coroutine, bounded, so that a server that hangs is a failure."""

    async def bounded():
        async with asyncio.timeout(60):
            return await coroutine

    return asyncio.run(bounded())


__all__ = ["MANY", "SECRET", "DecodeError", "run", "serving", "settings_of"]
