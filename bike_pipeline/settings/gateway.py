"""The gateway before the model servers: where it listens, who may ask it, how much, and which servers it asks."""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from bike_pipeline.settings.section import Count, Positive, Section

Port = Annotated[int, Field(ge=0, le=65_535)]
Label = Literal["stable", "canary", "challenger", "shadow"]


def _server_address(text: str) -> str:
    found = re.fullmatch(r"(?:[A-Za-z0-9_.\-]+|\[(.+)\])(?::\d{1,5}:\d{1,5})?", text)
    try:
        if not found or found[1]:
            IPv6Address(found[1] if found else text)
    except ValueError:
        raise ValueError("no HOST or HOST:REST_PORT:GRPC_PORT; of IPv6, [ADDRESS]:REST_PORT:GRPC_PORT") from None
    return text


# A host, then the ports of REST and gRPC where they are not TF Serving's own.
ServerAddress = Annotated[str, AfterValidator(_server_address)]
HeaderName = Annotated[str, Field(pattern=r"^[a-z0-9-]*$")]


class GatewayTlsSettings(Section):
    """The gateway's certificate, and whether clients must show theirs.

    Envoy reads the files again when others are renamed into their places.

    Attributes:
        certificate_file: the gateway's certificate and what signed it, PEM, its own first; empty: no TLS.
        key_file: the private key of that certificate, PEM, without a password.
        client_ca_file: the authorities whose client certificates are let in (mTLS), PEM; empty: clients need none.
        minimum_version: the oldest protocol version that is spoken.
    """

    certificate_file: str = ""
    key_file: str = ""
    client_ca_file: str = ""
    minimum_version: Literal["1.2", "1.3"] = "1.2"

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if bool(self.certificate_file) != bool(self.key_file):
            raise ValueError("certificate_file and key_file are needed together")
        if self.client_ca_file and not self.certificate_file:
            raise ValueError("client_ca_file needs certificate_file and key_file: without TLS no client is known by it")
        return self


class GatewayServerTlsSettings(Section):
    """TLS from the gateway to the servers that `servers` names. Envoy reads these files again as those of `tls`.

    Attributes:
        ca_file: the authorities that a server's certificate must be of, PEM; it must name the server's host. Empty: the
            servers are asked without TLS.
        certificate_file: the certificate that the gateway shows to servers (mTLS), PEM; empty: none.
        key_file: its private key, PEM, without a password.
    """

    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if bool(self.certificate_file) != bool(self.key_file):
            raise ValueError("certificate_file and key_file are needed together")
        if self.certificate_file and not self.ca_file:
            raise ValueError("certificate_file needs ca_file: without TLS no certificate is shown")
        return self


class GatewayJwtSettings(Section):
    """Which JSON Web Tokens are believed (RFC 7519, RFC 8725).

    Attributes:
        jwks_file: the issuer's public keys as a JSON Web Key Set (RFC 7517); a shared secret is none.
        issuer: what `iss` must be.
        audience: what `aud` must hold.
        leeway_seconds: how far the clocks of issuer and gateway may differ.
    """

    jwks_file: str = ""
    issuer: str = ""
    audience: str = ""
    leeway_seconds: Annotated[int, Field(ge=1, le=300)] = 10


class GatewayAuthenticationSettings(Section):
    """How a client proves who it is.

    Attributes:
        methods: `api_keys`, `jwt` or both, one of which a client needs; none: whoever reaches the gateway may ask.
        api_key_file: public halves of the API keys (`bike-pipeline api-key`); empty for
            `<workspace>/keys/gateway-keys.json`.
        open_health: answer gRPC health checks without a key.
    """

    methods: tuple[Literal["api_keys", "jwt"], ...] = ()
    api_key_file: str = ""
    jwt: GatewayJwtSettings = GatewayJwtSettings()
    open_health: bool = True

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if len(set(self.methods)) != len(self.methods):
            raise ValueError("methods: the same method stands there twice")
        if "jwt" in self.methods:
            if not self.jwt.jwks_file:
                raise ValueError("jwt needs jwks_file")
            if not (self.jwt.issuer and self.jwt.audience):
                raise ValueError("jwt needs issuer and audience: else a token made for another service is believed")
        return self


class GatewayLimitSettings(Section):
    """How much one request, one client and all together may take.

    Attributes:
        request_bytes: largest body; the servers' own limit holds behind it.
        header_bytes: most bytes of a request's headers or metadata, in whole kibibytes.
        headers: most headers in one request.
        read_seconds: longest wait for a request's headers, and for all of it.
        idle_seconds: how long a connection without requests stays open.
        requests_per_second: of one client (its key, or its token's subject); 0: no limit.
        address_requests_per_second: of one address, those without valid credentials too; 0: no limit.
        total_requests_per_second: of all together; 0: no limit.
        burst: requests that may come at once before one of these rates holds.
        clients: most clients and addresses whose rate is kept in mind.
        connections: most open connections.
        memory_megabytes: of Envoy; above four fifths of it the largest gRPC requests are ended, above 95 % new ones
            refused and connections that send more closed.
    """

    request_bytes: Count = 64 * 1024 * 1024
    header_bytes: Annotated[int, Field(ge=1024, le=1024 * 1024, multiple_of=1024)] = 8192
    headers: Annotated[int, Field(ge=16, le=1000)] = 64
    read_seconds: Positive = 30.0
    idle_seconds: Positive = 75.0
    requests_per_second: Annotated[float, Field(ge=0.0)] = 0.0
    address_requests_per_second: Annotated[float, Field(ge=0.0)] = 0.0
    total_requests_per_second: Annotated[float, Field(ge=0.0)] = 0.0
    burst: Count = 100
    clients: Count = 10_000
    connections: Count = 10_000
    memory_megabytes: Annotated[int, Field(ge=64)] = 1024


class GatewaySettings(Section):
    """Envoy before the model servers: one address for REST and gRPC. See docs/gateway.md.

    Attributes:
        host: address to listen on.
        port: for REST and gRPC; 0 takes a free one.
        binary: Envoy's program; empty for that of the extra `gateway`, else the one on the PATH.
        servers: by label the server that runs elsewhere, `HOST` or `HOST:REST_PORT:GRPC_PORT`, an IPv6 address with
            ports in brackets; empty: an embedded server is started for each label that needs one.
        server_tls: how they are asked over TLS.
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
    server_tls: GatewayServerTlsSettings = GatewayServerTlsSettings()
    user_header: HeaderName = "x-user-id"
    user_cookie: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]*$")] = ""
    access_log: str = ""
    poll_seconds: Positive = 1.0
    request_timeout_seconds: Positive = 30.0
    drain_seconds: Count = 30
    metrics: bool = False
    tls: GatewayTlsSettings = GatewayTlsSettings()
    authentication: GatewayAuthenticationSettings = GatewayAuthenticationSettings()
    limits: GatewayLimitSettings = GatewayLimitSettings()

    @model_validator(mode="after")
    def _with_stable(self) -> Self:
        if self.servers and "stable" not in self.servers:
            raise ValueError("servers: name the server of `stable`, which answers what no other label does")
        return self
