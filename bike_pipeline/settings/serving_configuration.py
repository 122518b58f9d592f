"""What TF Serving is told: versions, batching, monitoring, request logging, and the container that runs it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from bike_pipeline.settings.section import Count, Section

Version = Annotated[int, Field(ge=1)]
Label = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]*$")]
Port = Annotated[int, Field(ge=1, le=65535)]


class VersionPolicySettings(Section):
    """Which versions TF Serving loads.

    Attributes:
        policy: `latest`, the newest `count` versions as soon as they are pushed; `all`; `specific`, those of
            `versions`; `promoted`, those that `bike-pipeline promote` gave a label, and none before.
        count: with `latest`, how many versions.
        versions: with `specific`, which ones.
        labels: with `specific`, a version by its label, such as {stable: 1795430256}.
    """

    policy: Literal["latest", "all", "specific", "promoted"] = "latest"
    count: Count = 1
    versions: tuple[Version, ...] = ()
    labels: dict[Label, Version] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.policy == "specific") != bool(self.versions):
            raise ValueError("versions belongs to the policy `specific`, which needs one at least")
        if unserved := sorted(set(self.labels.values()) - set(self.versions)):
            raise ValueError(
                f"labels: version {unserved[0]} is not among versions; a label needs a version that serves"
            )
        return self


class BatchingSettings(Section):
    """How TF Serving puts requests together; the fields of its BatchingParameters.

    Attributes:
        max_batch_size: most rows in one batch.
        batch_timeout_micros: microseconds that the first request of a batch waits for others.
        max_enqueued_batches: batches that may wait; a request beyond them is refused as unavailable.
        num_batch_threads: batches that are worked on at once; the number of cores is a good start.
        allowed_batch_sizes: sizes that batches are padded to, ascending, the last one `max_batch_size`; empty for any.
    """

    enabled: bool = True
    max_batch_size: Count = 128
    batch_timeout_micros: Annotated[int, Field(ge=0)] = 500
    max_enqueued_batches: Count = 1000
    num_batch_threads: Count = 2
    allowed_batch_sizes: tuple[Count, ...] = ()

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        sizes = self.allowed_batch_sizes
        if sizes and (list(sizes) != sorted(set(sizes)) or sizes[-1] != self.max_batch_size):
            raise ValueError("allowed_batch_sizes must ascend and end with max_batch_size")
        return self


class MonitoringSettings(Section):
    """TF Serving's metrics for Prometheus; `path` is where they are on the REST port."""

    enabled: bool = True
    path: Annotated[str, Field(pattern=r"^/[A-Za-z0-9_./-]+$")] = "/monitoring/prometheus/metrics"


class RequestLoggingSettings(Section):
    """TF Serving's request log; `logging.config` is written whatever `enabled` says.

    Attributes:
        enabled: whether models.config asks for it. A server without a registered log collector, which the official
            image is, refuses such a models.config.
        collector: type of the registered log collector.
        filename_prefix: where it writes.
        sampling_rate: share of the requests that are logged.
    """

    enabled: bool = False
    collector: Annotated[str, Field(min_length=1)] = "file"
    filename_prefix: Annotated[str, Field(min_length=1)] = "/var/log/tf-serving/requests"
    sampling_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 0.01


class ContainerSettings(Section):
    """The container that compose.yaml runs.

    Attributes:
        user: numeric user and group, never root.
        host: address of this machine that the ports are opened on.
        rest_port: also for metrics.
        models_folder: where the serving base path is mounted in the container.
        cpus: cores it may use.
        memory: memory it may use, in compose's notation.
        poll_seconds: how often it looks for new versions, and for a changed models.config.
    """

    image: Annotated[str, Field(pattern=r"^[a-z0-9][a-zA-Z0-9._/:@-]*[:@][a-zA-Z0-9._:-]+$")] = (
        "tensorflow/serving:2.19.1"
    )
    user: Annotated[str, Field(pattern=r"^[1-9]\d*:[1-9]\d*$")] = "1000:1000"
    host: str = "127.0.0.1"
    grpc_port: Port = 8500
    rest_port: Port = 8501
    models_folder: Annotated[str, Field(pattern=r"^/[A-Za-z0-9_./-]+[A-Za-z0-9_-]$")] = "/models"
    cpus: Annotated[float, Field(gt=0.0)] = 2.0
    memory: Annotated[str, Field(pattern=r"^[1-9]\d*[kmg]$")] = "1g"
    poll_seconds: Count = 1

    @model_validator(mode="after")
    def _two_ports(self) -> Self:
        if self.grpc_port == self.rest_port:
            raise ValueError("grpc_port and rest_port must differ")
        return self


class ServingConfigurationSettings(Section):
    """What TF Serving is told; `bike-pipeline serving-config` writes it as TF Serving's own files."""

    versions: VersionPolicySettings = VersionPolicySettings()
    batching: BatchingSettings = BatchingSettings()
    monitoring: MonitoringSettings = MonitoringSettings()
    request_logging: RequestLoggingSettings = RequestLoggingSettings()
    container: ContainerSettings = ContainerSettings()
