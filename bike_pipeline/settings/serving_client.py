"""How this machine asks a model server."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from bike_pipeline.settings.section import Count, Positive, Section


class ServingClientSettings(Section):
    """How this machine asks a model server that speaks TF Serving's protocols.

    Secrets are never settings: a bearer token comes from the variable BIKE_SERVING_TOKEN, an API key from
    BIKE_SERVING_API_KEY.

    Attributes:
        address: `host:port`, or `http://`, `https://`, `grpc://` or `grpcs://` before it; a port that is left out is TF
            Serving's own (REST 8501, gRPC 8500).
        protocol: what is spoken where the address does not say it.
        tls: encrypted, where the address does not say it. Naming a file below says the same.
        ca_file: certificates to trust (PEM); empty for those of this machine.
        certificate: this client's certificate for mutual TLS (PEM, with its chain).
        key: the private key of `certificate` (PEM, without a password).
        timeout_seconds: longest wait for a call as a whole, with every try and every wait between them.
        attempts: tries of one request; only what may be sent again is.
        first_wait_seconds: upper bound of the random wait before the second try; it doubles with every further one.
        max_wait_seconds: largest upper bound of that wait.
        rows_per_request: rows sent in one request; more rows are several requests, one after the other.
    """

    address: Annotated[str, Field(pattern=r"^\S*$")] = "127.0.0.1"
    protocol: Literal["rest", "grpc"] = "rest"
    tls: bool = False
    ca_file: str = ""
    certificate: str = ""
    key: str = ""
    timeout_seconds: Positive = 30.0
    attempts: Count = 5
    first_wait_seconds: Positive = 0.05
    max_wait_seconds: Positive = 2.0
    rows_per_request: Count = 10_000

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if bool(self.certificate) != bool(self.key):
            raise ValueError("mutual TLS needs certificate and key, both of them")
        if self.max_wait_seconds < self.first_wait_seconds:
            raise ValueError("max_wait_seconds is smaller than first_wait_seconds")
        return self
