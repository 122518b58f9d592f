"""Load from Python: for where there is no compiled generator. It measures itself, too."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from bike_pipeline.serving.clients import AsyncClient, ClientError, Connection, RetryPolicy, connect_async
from bike_pipeline.serving.clients.answers import Arrays
from bike_pipeline.serving.load.figures import Figures, Load, percentiles


def python(connection: Connection, columns: Arrays, load: Load) -> Figures:
    """Ask with as many tasks as there are to be clients, or at a rate; nothing is tried again.

    Over gRPC the tasks share one connection.

    Args:
        connection: the server.
        columns: what each request asks.
        load: how many clients, how long, and how often.
    """
    return asyncio.run(_ask(replace(connection, retries=RetryPolicy(attempts=1)), columns, load))


async def _ask(connection: Connection, columns: Arrays, load: Load) -> Figures:
    milliseconds: list[float] = []
    failed: list[str] = []
    async with connect_async(connection) as client:
        began = time.perf_counter()
        clients = [
            asyncio.create_task(_wait(client, columns, load, began, number, milliseconds, failed))
            for number in range(load.connections)
        ]
        await asyncio.gather(*clients)
        took = time.perf_counter() - began
    return Figures("python", len(milliseconds), len(failed), took, *percentiles(milliseconds))


async def _wait(
    client: AsyncClient,
    columns: Arrays,
    load: Load,
    began: float,
    number: int,
    milliseconds: list[float],
    failed: list[str],
) -> None:
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
            await client.predict(columns)
            milliseconds.append((time.perf_counter() - since) * 1000)
        except ClientError as error:
            failed.append(error.code)
        due = due + every if every else 0.0
