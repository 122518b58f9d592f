"""Ask the model that serves, in this process or over a model server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bike_pipeline.serving.clients.connection import Protocol
    from bike_pipeline.serving.records import Record
    from bike_pipeline.settings import Settings


def predict(
    settings: Settings,
    records: Sequence[Record],
    *,
    version: int | None = None,
    server: str | None = None,
    protocol: Protocol | None = None,
    label: str = "",
    source: str = "the records",
) -> list[float]:
    """Return the predicted rentals an hour, one number a record.

    Args:
        settings: where the model is, and how servers are spoken to.
        records: what is known of each hour; its date stands for year, month, weekday and, with holiday, working day.
        version: a version of the model; None is the promoted one.
        server: a model server that speaks TF Serving's protocols, such as "host:8501" or "grpc://host:8500"; None loads
            the model into this process, and with it TensorFlow.
        protocol: what the server is asked in, if its address does not say.
        label: the version label that the server's answer is wanted of.
        source: where the records come from, for messages.

    Raises:
        ModelError: a record is wrong, or there is no such model.
    """
    from bike_pipeline.serving.records import to_columns

    columns = to_columns(records, source)
    if server is not None:
        from bike_pipeline.serving.clients import connect, connection

        with connect(connection(settings, server, protocol=protocol, version=version, label=label)) as client:
            return [float(value) for value in client.predict(columns)]
    from bike_pipeline.lean_imports import lean_imports

    with lean_imports(google_cloud=True):
        from bike_pipeline.model_registry import signing
        from bike_pipeline.serving.predictor import Predictor

        signing.use(settings)
        return [float(value) for value in Predictor(settings.serving_path, version).predict(columns)]
