"""How models are served: where they go, the embedded server, its clients, and what is promoted."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from bike_pipeline.settings.section import Count, FormatName, Positive, Section
from bike_pipeline.settings.serving_configuration import ServingConfigurationSettings

Port = Annotated[int, Field(ge=0, le=65_535)]
Address = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-\[\]:]+:\d{1,5}$")]


class BatchingSettings(Section):
    """How requests that arrive together are answered together: `max_rows` in one call of the model.

    One request more than `max_waiting_requests` is refused as unavailable.
    """

    max_rows: Count = 1024
    max_waiting_requests: Count = 10_000


class LimitSettings(Section):
    """What protects the parser of the embedded server; all other limits are the gateway's.

    Attributes:
        json_depth: deepest nesting of a JSON body.
        rows: most rows in one request.
    """

    json_depth: Annotated[int, Field(ge=4, le=512)] = 32
    rows: Count = 65536


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
        models_config: a file of TF Serving's ModelServerConfig with the models that are served, each with its policy,
            in place of the one of `serving.model_name`; read again when it changes. Empty for none.
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
        limits: how much one request may hold.
        model_roots: folders (or s3://, gs:// prefixes) below which HandleReloadConfigRequest may name a base path,
            besides the folder of the served models.
        key_file: a file with the one key that clients must send as bearer token; the variable BIKE_SERVING_SERVER_KEY
            goes before it. Empty, both: none, and the server listens to this machine alone.
        trusted_network: whether it may listen to others without a key, since only a gateway reaches it.
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
    models_config: str = ""
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
    limits: LimitSettings = LimitSettings()
    model_roots: tuple[str, ...] = ()
    key_file: str = ""
    trusted_network: bool = False
    metrics: bool = True
    ui: bool = False

    @model_validator(mode="after")
    def _specific(self) -> Self:
        if (self.version_policy == "specific") != bool(self.specific_versions):
            raise ValueError("specific_versions: name versions with version_policy specific, and only with it")
        if self.label and self.version_policy != "promoted":
            raise ValueError("label: a label has a version where what is promoted serves: version_policy promoted")
        for root in self.model_roots:
            # A relative root would depend on where the server was started.
            if "://" not in root and not root.startswith("/"):
                raise ValueError(f"model_roots: {root!r} is not an absolute folder")
            if not root.split("://", 1)[-1].strip("/."):
                raise ValueError(f"model_roots: {root!r} would allow everything")
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
    promotion: PromotionSettings = PromotionSettings()

    @model_validator(mode="before")
    @classmethod
    def _moved(cls, values: Any) -> Any:
        if isinstance(values, dict) and "security" in values:
            raise ValueError(
                "security: the gateway keeps strangers out now: tls, authentication and the limits of clients are "
                "settings of `gateway`; limits.json_depth, limits.rows and model_roots are of `serving.server` "
                "(docs/gateway.md)"
            )
        return values

    @model_validator(mode="after")
    def _local(self) -> Self:
        if "://" in self.base_path and not self.base_path.startswith(("s3://", "gs://")):
            raise ValueError("base_path must be a local or mounted folder, or an address with s3:// or gs://")
        return self
