"""Every transport asked the same way, so that one test speaks for all of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bike_pipeline import features
from bike_pipeline.serving.clients import Connection, RetryPolicy, connect, connect_async

COLUMNS: dict[str, Any] = {f.name: [1, 0] if f.kind == "int" else [0.5, 0.25] for f in features.REQUIRED_INPUTS}
QUICK = RetryPolicy(attempts=4, first=0.001, longest=0.002)

both_ways = pytest.mark.parametrize("way", ["blocking", "asynchronous"])


def to(port: int, protocol: Any, **options: Any) -> Connection:
    """Return a connection to loopback that tries again at once."""
    return Connection("127.0.0.1", port, protocol, "bike_demand", **{"timeout": 20.0, "retries": QUICK, **options})


def ask(way: str, connection: Connection, method: str = "predict", *arguments: Any) -> Any:
    """Call a method of a new client, blocking or not."""
    if method == "predict" and not arguments:
        arguments = (COLUMNS,)

    async def asked() -> Any:
        async with connect_async(connection) as client:
            return await getattr(client, method)(*arguments)

    if way == "asynchronous":
        return asyncio.run(asked())
    with connect(connection) as client:
        return getattr(client, method)(*arguments)
