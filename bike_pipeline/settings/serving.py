"""How models are served: where they go, the embedded server, who may ask it, its clients, and what is promoted."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from bike_pipeline.settings.section import Count, FormatName, Positive, Section
from bike_pipeline.settings.serving_configuration import ServingConfigurationSettings

Port = Annotated[int, Field(ge=0, le=65_535)]
Address = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-\[\]:]+:\d{1,5}$")]
Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "HS256", "HS384", "HS512"
]


class BatchingSettings(Section):
    """How requests that arrive together are answered together: `max_rows` in one call of the model.

    One request more than `max_waiting_requests` is refused as unavailable.
    """

    max_rows: Count = 1024
    max_waiting_requests: Count = 10_000


class ServerSettings(Section):
    """How the embedded model server serves.

    Attributes:
        host: address to listen on; a port of 0 takes a free one.
        socket_folder: a folder for the Unix sockets `rest.sock` and `grpc.sock`, in place of host and ports.
        version_policy: which versions are served: what is `promoted`, the newest that are pushed (`latest`), `all`, or
            those that are named (`specific`).
        latest_versions: how many of the newest versions are served, with `latest`.
        specific_versions: the versions that are served, with `specific`.
        labels: version labels, each with the version that it stands for.
        label: with `promoted`, the one label whose version is served, which answers a request that names no version;
            empty for every version with a label.
        allow_labels_on_unavailable: whether a new label may stand for a version that is not available yet.
        poll_seconds: how often the model's folder is looked at.
        keep_last_version: whether the last version goes on serving where its folder is gone.
        load_retries: how often loading a broken version is tried again.
        load_retry_seconds: time between two tries.
        backends: formats that may answer, the fastest that passed parity first chosen; empty for every float32 format.
            `saved_model` alone answers with TensorFlow.
        request_timeout_seconds: longest time that a request waits for its answer.
        drain_seconds: longest time that requests under way get when the server stops or a version is unloaded.
        max_request_bytes: largest request, before and after decompression.
        metrics: whether `/monitoring/prometheus/metrics` answers.
        ui: whether there is a page for people at `/ui/`.
    """

    host: str = "127.0.0.1"
    socket_folder: str = ""
    rest_port: Port = 8501
    grpc_port: Port = 8500
    version_policy: Literal["promoted", "latest", "all", "specific"] = "promoted"
    latest_versions: Count = 1
    specific_versions: tuple[Annotated[int, Field(ge=0)], ...] = ()
    labels: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    label: str = ""
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
    ui: bool = False

    @model_validator(mode="after")
    def _specific(self) -> Self:
        if (self.version_policy == "specific") != bool(self.specific_versions):
            raise ValueError("specific_versions: name versions with version_policy specific, and only with it")
        if self.label and self.version_policy != "promoted":
            raise ValueError("label: a label has a version where what is promoted serves: version_policy promoted")
        return self


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


class ServingSettings(Section):
    """Where a pushed model goes.

    Attributes:
        model_name: the name that TF Serving serves the model under.
        base_path: local or mounted folder, or s3:// or gs:// address, that holds one folder a model name; empty for
            `<workspace>/serving`.
    """

    model_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    base_path: str = ""
    configuration: ServingConfigurationSettings = ServingConfigurationSettings()
    server: ServerSettings = ServerSettings()
    client: ServingClientSettings = ServingClientSettings()
    security: ServingSecuritySettings = ServingSecuritySettings()
    promotion: PromotionSettings = PromotionSettings()

    @model_validator(mode="after")
    def _local(self) -> Self:
        if "://" in self.base_path and not self.base_path.startswith(("s3://", "gs://")):
            raise ValueError("base_path must be a local or mounted folder, or an address with s3:// or gs://")
        return self
