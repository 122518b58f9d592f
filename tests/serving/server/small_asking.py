"""Requests of both protocols to a small server."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import grpc
from tensorflow_serving.apis import get_model_status_pb2, model_management_pb2, model_service_pb2_grpc


async def get(address, path, headers=None, **options):
    async with aiohttp.ClientSession() as session:
        method = options.pop("method", "GET")
        async with session.request(method, f"http://{address}{path}", headers=headers, **options) as answer:
            content = await answer.read()
            if answer.status >= 400:
                assert list(json.loads(content)) == ["error"], content
            return answer.status, content.decode(), answer.headers


def status_request(name="bikes"):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = name
    return request


async def call(address, metadata=(), *, name="bikes", reload=None):
    """Return the status code, the details and the trailing metadata of a call."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        try:
            if reload is None:
                await stub.GetModelStatus(status_request(name), metadata=metadata, timeout=20)
            else:
                request = model_management_pb2.ReloadConfigRequest()
                request.config.model_config_list.config.add(name="bikes", base_path=reload)
                await stub.HandleReloadConfigRequest(request, metadata=metadata, timeout=20)
        except grpc.aio.AioRpcError as error:
            return error.code().name, error.details(), dict(error.trailing_metadata() or ())
    return "OK", "", {}


async def raw(address, sent, *, wait=20.0):
    """Return what a server answers to these bytes until it closes the connection."""
    host, _, port = address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(sent)
    async with asyncio.timeout(wait):
        answer = await reader.read()
    writer.close()
    return answer
