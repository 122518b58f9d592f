"""The gateway before the model servers: where it listens, who may ask it, how much, and which servers it asks."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from bike_pipeline.settings.section import Count, Positive, Section

Port = Annotated[int, Field(ge=0, le=65_535)]
Label = Literal["stable", "canary", "challenger", "shadow"]
# A host, then the ports of REST and gRPC where they are not TF Serving's own.
ServerAddress = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-]+(:\d{1,5}:\d{1,5})?$")]
HeaderName = Annotated[str, Field(pattern=r"^[a-z0-9-]*$")]


class GatewaySettings(Section):
    """Envoy before the model servers: one address for REST and gRPC. See docs/gateway.md.

    Attributes:
        host: address to listen on.
        port: for REST and gRPC; 0 takes a free one.
        binary: Envoy's program; empty for that of the extra `gateway`, else the one on the PATH.
        servers: by label the server that runs elsewhere, `HOST` or `HOST:REST_PORT:GRPC_PORT`; empty: an embedded
            server is started for each label that needs one.
        user_header: the header that names a user, who is answered by the same version again and again while a
            `challenger` has a share; in lower case.
        user_cookie: a cookie that does so; counts where the header is absent.
        access_log: a line of JSON a request; empty for `<workspace>/logs/gateway.jsonl`.
        poll_seconds: how often the promotion log is looked at.
        request_timeout_seconds: longest time that a server may take for an answer.
        drain_seconds: longest time that requests under way get when the gateway stops.
        metrics: whether `/monitoring/prometheus/metrics` of the stable server is asked through the gateway.
    """

    host: str = "127.0.0.1"
    port: Port = 8080
    binary: str = ""
    servers: dict[Label, ServerAddress] = Field(default_factory=dict)
    user_header: HeaderName = "x-user-id"
    user_cookie: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]*$")] = ""
    access_log: str = ""
    poll_seconds: Positive = 1.0
    request_timeout_seconds: Positive = 30.0
    drain_seconds: Count = 30
    metrics: bool = False

    @model_validator(mode="after")
    def _with_stable(self) -> Self:
        if self.servers and "stable" not in self.servers:
            raise ValueError("servers: name the server of `stable`, which answers what no other label does")
        return self
