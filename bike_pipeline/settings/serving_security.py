"""Who may ask the embedded server, over what connection, and how much."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from bike_pipeline.settings.section import Count, Positive, Section

Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "HS256", "HS384", "HS512"
]


class TlsSettings(Section):
    """The server's certificate, and whether clients must show theirs. Files are read again when they change.

    Attributes:
        certificate_file: the server's certificate and what signed it, PEM, its own first; empty: no TLS.
        key_file: the private key of that certificate, PEM, without a password.
        client_ca_file: the authorities whose client certificates are let in (mTLS), PEM; empty: clients need none.
        minimum_version: the oldest protocol version that is spoken over REST; gRPC's own library speaks 1.2 and 1.3.
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


class JwtSettings(Section):
    """Which JSON Web Tokens are believed (RFC 7519, RFC 8725).

    Attributes:
        algorithms: the allowed signatures; `none` is never among them.
        key_file: the issuer's public key (PEM), or for HS… the shared secret of at least 32 bytes.
        jwks_file: in place of `key_file`, a JSON Web Key Set (RFC 7517): a token names its key by `kid`.
        issuer: what `iss` must be.
        audience: what `aud` must hold.
        leeway_seconds: how far the clocks of issuer and server may differ.
    """

    algorithms: tuple[Algorithm, ...] = ("RS256", "ES256", "EdDSA")
    key_file: str = ""
    jwks_file: str = ""
    issuer: str = ""
    audience: str = ""
    leeway_seconds: Annotated[int, Field(ge=0, le=300)] = 10

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if not self.algorithms:
            raise ValueError("algorithms: name at least one")
        # A public key that is also taken for a shared secret lets anyone sign (RFC 8725, 2.1).
        if len({name.startswith("HS") for name in self.algorithms}) > 1:
            raise ValueError("algorithms: HS… cannot stand beside signatures with a public key")
        if self.key_file and self.jwks_file:
            raise ValueError("key_file and jwks_file: leave one of the two empty")
        return self


class AuthenticationSettings(Section):
    """How a client proves who it is.

    Attributes:
        methods: `api_keys`, `jwt` or both; none: everybody who reaches the server may ask it anything.
        api_key_file: hashes of the API keys (`bike-pipeline api-key`); empty for `<workspace>/keys/api-keys.json`.
        open_health: answer gRPC health checks without a key.
        open_metrics: answer `/monitoring/prometheus/metrics` without a key.
    """

    methods: tuple[Literal["api_keys", "jwt"], ...] = ()
    api_key_file: str = ""
    jwt: JwtSettings = JwtSettings()
    open_health: bool = True
    open_metrics: bool = True

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if len(set(self.methods)) != len(self.methods):
            raise ValueError("methods: the same method stands there twice")
        if "jwt" in self.methods:
            if not (self.jwt.key_file or self.jwt.jwks_file):
                raise ValueError("jwt needs key_file or jwks_file")
            if not (self.jwt.issuer and self.jwt.audience):
                raise ValueError("jwt needs issuer and audience: else a token made for another service is believed")
        return self


class LimitSettings(Section):
    """How much one request, one client and one connection may take.

    Attributes:
        json_depth: deepest nesting of a JSON body.
        rows: most rows in one request.
        client_rows: most rows of one client (as for the rate) that are being answered at the same time.
        client_bytes: most bytes of one client's requests that are under way at the same time; a single request of
            `serving.server.max_request_bytes` always may.
        bodies_bytes: the same for all clients together.
        header_bytes: longest request line, longest header and most gRPC metadata, in bytes.
        headers: most headers in one REST request.
        read_seconds: longest wait for a request's headers, and again for its body.
        idle_seconds: how long a connection without requests stays open.
        requests_per_second: of one client (its key, its token's subject, or its address); 0: no limit.
        burst: requests that one client may send at once before that rate holds.
        clients: most clients whose rate is kept in mind.
    """

    json_depth: Annotated[int, Field(ge=4, le=512)] = 32
    rows: Count = 65536
    client_rows: Count = 4 * 65536
    client_bytes: Count = 128 * 1024 * 1024
    bodies_bytes: Count = 512 * 1024 * 1024
    header_bytes: Annotated[int, Field(ge=1024, le=1024 * 1024)] = 8192
    headers: Annotated[int, Field(ge=16, le=1000)] = 64
    read_seconds: Positive = 30.0
    idle_seconds: Positive = 75.0
    requests_per_second: Annotated[float, Field(ge=0.0)] = 0.0
    burst: Count = 100
    clients: Annotated[int, Field(ge=100)] = 100_000


class ServingSecuritySettings(Section):
    """Who may ask the embedded server, over what connection, and how much. See docs/serving-security.md.

    Attributes:
        model_roots: folders (or s3://, gs:// prefixes) below which HandleReloadConfigRequest may name a base path,
            besides the folder of the served models.
    """

    tls: TlsSettings = TlsSettings()
    authentication: AuthenticationSettings = AuthenticationSettings()
    limits: LimitSettings = LimitSettings()
    model_roots: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _no_root_of_everything(self) -> Self:
        for root in self.model_roots:
            # A relative root would depend on where the server was started.
            if "://" not in root and not root.startswith("/"):
                raise ValueError(f"model_roots: {root!r} is not an absolute folder")
            if not root.split("://", 1)[-1].strip("/."):
                raise ValueError(f"model_roots: {root!r} would allow everything")
        return self
