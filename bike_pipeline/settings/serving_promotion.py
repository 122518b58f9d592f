"""How a pushed version comes to serve: whether by itself, what it must pass before, who is told."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from bike_pipeline.settings.section import FormatName, Positive, Section

Address = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-\[\]:]+:\d{1,5}$")]


class ValidationSettings(Section):
    """What a version must pass, in a process of its own, before it is promoted.

    Attributes:
        enabled: whether a version must pass anything; without it, every pushed version may be promoted.
        backends: formats that may answer, as `serving.server.backends`: empty for the fastest that passed parity, which
            the embedded server loads; [saved_model] for what TF Serving loads.
        rows: golden rows that are asked, one a request.
        latency_limit_ms: most milliseconds that the 95th percentile of the requests may take.
        memory_limit_mb: most megabytes that the process may have had in memory (peak resident set).
        max_relative_difference: largest |answer - model's own answer| / max(rentals, 1).
        start_seconds: how long loading may take.
        request_seconds: how long one request may take.
    """

    enabled: bool = True
    backends: tuple[FormatName, ...] = ()
    rows: Annotated[int, Field(ge=1, le=1000)] = 64
    latency_limit_ms: Positive = 100.0
    memory_limit_mb: Positive = 2048.0
    max_relative_difference: Positive = 1e-5
    start_seconds: Positive = 120.0
    request_seconds: Positive = 10.0


class PromotionSettings(Section):
    """How a pushed version comes to serve.

    Attributes:
        automatic: a run validates and promotes what it pushes; without it, `bike-pipeline promote` does.
        validation: what a version must pass before.
        servers: gRPC addresses (host:port) of running servers that are told of a promotion.
        server_base_path: the model's base path as those servers see it; empty for where compose.yaml mounts it.
        server_seconds: how long a server may take to load a version and to answer.
        keep_loaded: earlier promoted versions that servers keep loaded, so that a rollback takes no loading.
        models_config: a models.config that is written anew at each promotion, for servers that poll it; empty for none.
    """

    automatic: bool = True
    validation: ValidationSettings = ValidationSettings()
    servers: tuple[Address, ...] = ()
    server_base_path: str = ""
    server_seconds: Positive = 60.0
    keep_loaded: Annotated[int, Field(ge=0, le=10)] = 1
    models_config: str = ""
