"""Load from Python: for where there is no compiled generator. It measures itself, too."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import grpc

from benchmarks.load.figures import Figures, Load, percentiles
from bike_pipeline.errors import ServerError
from bike_pipeline.serving.clients import Connection, connect
from bike_pipeline.serving.clients.core import Arrays, Exchange


@dataclass
class _Answers:
    milliseconds: list[float] = field(default_factory=list)
    errors: int = 0


def python(connection: Connection, columns: Arrays, load: Load) -> Figures:
    """Ask with as many tasks as there are to be clients, or at a rate; nothing is tried again.

    Over gRPC the tasks share one connection.
    """
    with connect(connection) as client:
        return asyncio.run(_ask(connection, client.predict_request(columns), load))


async def _ask(connection: Connection, exchange: Exchange[Any], load: Load) -> Figures:
    found = _Answers()
    async with (_grpc if connection.protocol == "grpc" else _rest)(connection, exchange) as send:
        began = time.perf_counter()
        await asyncio.gather(*(_wait(send, load, began, number, found) for number in range(load.connections)))
        took = time.perf_counter() - began
    return Figures("python", len(found.milliseconds), found.errors, took, *percentiles(found.milliseconds))


@contextlib.asynccontextmanager
async def _rest(connection: Connection, exchange: Exchange[Any]) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
    context = connection.ssl_context()
    async with aiohttp.ClientSession(
        f"{'https' if connection.tls else 'http'}://{connection.authority}",
        connector=aiohttp.TCPConnector(limit=0, ssl=context or False),
        headers={"content-type": "application/json", **connection.credentials},
        timeout=aiohttp.ClientTimeout(total=connection.timeout),
        raise_for_status=True,
    ) as session:

        async def send() -> Any:
            async with session.request(exchange.method, exchange.target, data=exchange.body) as response:
                return exchange.read(await response.read())

        yield send


@contextlib.asynccontextmanager
async def _grpc(connection: Connection, exchange: Exchange[Any]) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
    from bike_pipeline.serving.clients import rpc

    options = rpc.options()
    channel = (
        grpc.aio.secure_channel(connection.authority, rpc.channel_credentials(connection), options)
        if connection.tls
        else grpc.aio.insecure_channel(connection.authority, options)
    )
    call = getattr(rpc.services(channel)[exchange.target], exchange.method)
    metadata = tuple(connection.credentials.items())

    async def send() -> Any:
        return exchange.read(await call(exchange.body, timeout=connection.timeout, metadata=metadata))

    async with channel:
        yield send


async def _wait(send: Callable[[], Awaitable[Any]], load: Load, began: float, number: int, found: _Answers) -> None:
    """Be one client that waits for each answer before it asks again.

    At a rate, a request that is late because the one before it was is counted from the moment it was due: a slow server
    is not asked less (G. Tene, "How NOT to Measure Latency": coordinated omission).
    """
    every = load.connections / load.rate if load.rate is not None else 0.0
    due = began + every * number / load.connections
    while True:
        now = time.perf_counter()
        if due > now:
            await asyncio.sleep(due - now)
        since = due if every else time.perf_counter()
        if time.perf_counter() - began >= load.seconds:
            return
        try:
            await send()
            found.milliseconds.append((time.perf_counter() - since) * 1000)
        except (aiohttp.ClientError, grpc.RpcError, ServerError, TimeoutError):
            found.errors += 1
        due = due + every if every else 0.0
