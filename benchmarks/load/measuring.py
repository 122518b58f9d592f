"""Asks a server for a while, with the best generator for it that is there."""

from __future__ import annotations

from typing import Literal

import numpy as np

from benchmarks.load import compiled, generators
from benchmarks.load.figures import Figures, Load
from benchmarks.load.from_python import python
from bike_pipeline import features
from bike_pipeline.errors import ServerError
from bike_pipeline.serving.clients import Connection, connect
from bike_pipeline.serving.clients.core import Arrays

Choice = Literal["auto", "wrk", "h2load", "python"]
_DTYPES = {"int": np.int64, "float": np.float32}


def rows(number: int) -> Arrays:
    """Return rows within the ranges of the feature contract, no two alike where they allow it."""
    found: Arrays = {}
    for feature in features.REQUIRED_INPUTS:
        low, high = feature.minimum or 0, feature.maximum or 0
        steps = np.arange(number)
        values = low + steps % (high - low + 1) if feature.kind == "int" else low + (high - low) * (steps % 97 + 1) / 98
        found[feature.name] = values.astype(_DTYPES[feature.kind])
    return found


def generator_for(connection: Connection, choice: Choice) -> generators.Generator | None:
    """Return the compiled generator that makes a load; None for Python.

    wrk speaks no gRPC. Neither checks certificates, and h2load shows headers to everybody who lists the
    processes of this machine: encrypted servers, and those that ask who it is, are asked from Python.

    Args:
        connection: the server.
        choice: what was asked for.

    Raises:
        ServerError: the generator that was asked for is not there or cannot make this load.
    """
    private = connection.tls or bool(connection.credentials)
    fits = {
        "wrk": not private and connection.protocol == "rest",
        "h2load": not private,
    }
    if choice == "python":
        return None
    if choice != "auto":
        found = generators.find(choice) if fits[choice] else None
        if found is None:
            why = "is not there" if fits[choice] else "cannot make this load (gRPC, TLS or credentials)"
            raise ServerError(f"{choice} {why}", fix="fetch it by `make load-generators`, or leave --generator out")
        return found
    return next((found for name, fit in fits.items() if fit and (found := generators.find(name))), None)


def measure(connection: Connection, load: Load, choice: Choice = "auto") -> Figures:
    """Ask a server for a while and return what that gave.

    Args:
        connection: the server.
        load: what it is asked.
        choice: the generator; "auto" for the best one that is there.

    Raises:
        ServerError: the server does not answer a single request of this kind, or the generator fails.
    """
    columns = rows(load.rows)
    generator = generator_for(connection, choice)
    with connect(connection) as client:
        client.predict(columns)
        exchange = client.predict_request(columns)
    if generator is None:
        return python(connection, columns, load)
    make = compiled.wrk if generator.name == "wrk" else compiled.h2load
    return make(generator, connection, exchange, load)
