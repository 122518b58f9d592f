"""How the embedded model server serves: addresses, versions, batching, limits."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from bike_pipeline.settings.section import Count, FormatName, Positive, Section

Port = Annotated[int, Field(ge=0, le=65_535)]


class BatchingSettings(Section):
    """How requests that arrive together are answered together.

    Attributes:
        max_rows: rows of one call of the model.
        max_waiting_requests: requests that may wait for the model; one more is refused as unavailable.
    """

    max_rows: Count = 1024
    max_waiting_requests: Count = 10_000


class ServerSettings(Section):
    """How the embedded model server serves.

    Attributes:
        host: address to listen on.
        rest_port: port of the REST API; 0 takes a free one.
        grpc_port: port of the gRPC API; 0 takes a free one.
        version_policy: which versions are served: what is `promoted`, the newest that are pushed (`latest`), `all`, or
            those that are named (`specific`).
        latest_versions: how many of the newest versions are served, with `latest`.
        specific_versions: the versions that are served, with `specific`.
        labels: version labels, each with the version that it stands for.
        allow_labels_on_unavailable: whether a new label may stand for a version that is not available yet.
        poll_seconds: how often the model's folder is looked at.
        keep_last_version: whether the last version goes on serving where its folder is gone.
        load_retries: how often loading a broken version is tried again.
        load_retry_seconds: time between two tries.
        backends: formats that may answer, the fastest that passed parity first chosen; empty for every float32 format.
            `saved_model` alone answers with TensorFlow.
        batching: how requests that arrive together are answered together.
        request_timeout_seconds: longest time that a request waits for its answer.
        drain_seconds: longest time that requests under way get when the server stops or a version is unloaded.
        max_request_bytes: largest request, before and after decompression.
        metrics: whether `/monitoring/prometheus/metrics` answers.
    """

    host: str = "127.0.0.1"
    rest_port: Port = 8501
    grpc_port: Port = 8500
    version_policy: Literal["promoted", "latest", "all", "specific"] = "promoted"
    latest_versions: Count = 1
    specific_versions: tuple[Annotated[int, Field(ge=0)], ...] = ()
    labels: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    allow_labels_on_unavailable: bool = False
    poll_seconds: Positive = 1.0
    keep_last_version: bool = True
    load_retries: Annotated[int, Field(ge=0)] = 5
    load_retry_seconds: Positive = 60.0
    backends: tuple[FormatName, ...] = ()
    batching: BatchingSettings = BatchingSettings()
    request_timeout_seconds: Positive = 30.0
    drain_seconds: Positive = 30.0
    max_request_bytes: Count = 64 * 1024 * 1024
    metrics: bool = True

    @model_validator(mode="after")
    def _specific(self) -> Self:
        if (self.version_policy == "specific") != bool(self.specific_versions):
            raise ValueError("specific_versions: name versions with version_policy specific, and only with it")
        return self
