"""Federated training: clients that keep their rows, and a server that only sees sums and weights, with Flower."""

from __future__ import annotations

import importlib.util
import os

from bike_pipeline.errors import InstallationError


def require_flower() -> None:
    """Raise InstallationError if Flower is not there; it is no extra, since it needs older packages than the rest."""
    if importlib.util.find_spec("flwr") is None:
        raise InstallationError(
            "Flower (flwr) is not installed in this environment",
            where="federated training",
            fix="run `make flower`, and call it with .federated/bin/python",
        )
    # Else it tells its makers of every start.
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
