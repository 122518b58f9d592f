"""The second half of the embedded data as traffic: the model that serves is asked for every hour of 2012."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bike_pipeline import progress

if TYPE_CHECKING:
    from pathlib import Path

    from bike_pipeline.settings import Settings

# Of the embedded server's own log, most rows of a request that are kept by default.
_ROWS_A_REQUEST = 100


@dataclass(frozen=True)
class DemoTraffic:
    """What was asked.

    Attributes:
        rows: hours that were asked for.
        requests: in so many requests.
        labels: the file with the labels of these hours.
    """

    rows: int
    requests: int
    labels: Path


def ask_demo(settings: Settings) -> DemoTraffic:
    """Start the embedded server on a free port, ask it for every hour of the second half of the embedded data, stop it.

    Its request log holds them afterwards, as of any other client.

    Raises:
        ModelError: nothing serves.
        ServerError: the server cannot be started, or refuses.
    """
    from bike_pipeline.data.embedded_dataset import split_demo
    from bike_pipeline.data.labels import read_labels
    from bike_pipeline.data.past_weather import with_optional_inputs
    from bike_pipeline.use_cases.feedback import served

    served(settings)
    first, second = split_demo(settings.workspace_path / "uploads")
    now = datetime.now(UTC).replace(tzinfo=None)
    (before, _), (rows, _) = read_labels(str(first), None, now), read_labels(str(second), None, now)
    columns = _columns(with_optional_inputs(rows, before))
    asyncio.run(_asked(settings, columns))
    return DemoTraffic(rows.num_rows, -(-rows.num_rows // _ROWS_A_REQUEST), second)


def _columns(table: Any) -> dict[str, Any]:
    from bike_pipeline import features

    return {feature.name: table.column(feature.name).to_numpy() for feature in features.MODEL_INPUTS}


async def _asked(settings: Settings, columns: dict[str, Any]) -> None:
    from bike_pipeline.serving.server.app import Server

    own = {"rest_port": 0, "grpc_port": 0, "host": "127.0.0.1"}
    alone = settings.serving.model_copy(update={"server": settings.serving.server.model_copy(update=own)})
    server = Server(settings.model_copy(update={"serving": alone}))
    await server.start()
    try:
        await asyncio.to_thread(_ask, settings, server.rest_port, columns)
    finally:
        await server.stop()


def _ask(settings: Settings, port: int, columns: dict[str, Any]) -> None:
    from bike_pipeline.serving.clients import connect, connection

    made = replace(connection(settings, f"http://127.0.0.1:{port}"), rows_per_request=_ROWS_A_REQUEST)
    rows = len(next(iter(columns.values())))
    with connect(made) as client:
        for start in range(0, rows, _ROWS_A_REQUEST):
            progress.report(start / rows, f"asking for the hours of 2012: {start:,} of {rows:,}")
            client.predict({name: values[start : start + _ROWS_A_REQUEST] for name, values in columns.items()})
