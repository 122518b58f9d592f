"""Which Beam engine the Beam-powered stages run on, and how user code reaches its workers.

Nothing of this is part of a cache key: an engine does not change what a stage computes.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from bike_pipeline.settings.section import Count, Section

Engine = Literal["direct", "flink", "spark", "portable", "dataflow"]
Environment = Literal["LOOPBACK", "DOCKER", "PROCESS", "EXTERNAL"]
# Host and port, as gRPC takes it.
Address = Annotated[str, Field(pattern=r"^([A-Za-z0-9_.-]+|\[[0-9a-fA-F:]+\]):[0-9]{1,5}$")]

FLINK_LOCAL = "[local]"
_SPARK_LOCAL = re.compile(r"^local(\[(\d+|\*)\])?$")
_SPARK_MASTER = re.compile(r"^(local(\[(\d+|\*)\])?|spark://[^\s/]+:\d+|yarn|k8s://\S+)$")
_OWN_HOSTS = ("localhost", "127.0.0.1", "::1")
# Flags that a setting of its own stands for: given twice, one of the two would silently lose.
_OWN_FLAGS = {
    "runner": "beam.engine",
    "job_endpoint": "beam.job_server.endpoint",
    "environment_type": "beam.workers.environment",
    "environment_config": "beam.workers",
    "sdk_container_image": "beam.workers.image",
    "setup_file": "beam.workers.setup_file",
    "direct_num_workers": "beam.direct.workers",
    "direct_running_mode": "beam.direct.mode",
    "flink_master": "beam.flink.master",
    "spark_master_url": "beam.spark.master",
    "parallelism": "beam.flink.parallelism",
    "project": "beam.dataflow.project",
    "region": "beam.dataflow.region",
    "temp_location": "beam.dataflow.temp_location",
    "staging_location": "beam.dataflow.staging_location",
}


class DirectSettings(Section):
    """Beam's own runner on this machine.

    Attributes:
        mode: where the workers are: in this process one after the other, in threads, or in processes of their own.
    """

    workers: Count
    mode: Literal["in_memory", "multi_threading", "multi_processing"]

    @model_validator(mode="after")
    def _workers_that_work(self) -> Self:
        if self.mode == "in_memory" and self.workers > 1:
            raise ValueError("mode in_memory has one worker; several need multi_threading or multi_processing")
        return self


class WorkerSettings(Section):
    """How Flink's, Spark's, Dataflow's and other engines' workers get the code of the stages.

    Attributes:
        environment: LOOPBACK: the workers are this process; DOCKER: containers of `image`; PROCESS: `command` is
            started on each machine; EXTERNAL: a worker pool that listens at `address`.
        image: container image with this package and all it needs (the project's Dockerfile), also for Dataflow.
        setup_file: path of this project's setup.py: the workers build and install the package from it, if the image
            does not hold it.
        processes: worker processes on each machine.
    """

    environment: Environment
    image: str = ""
    command: str = ""
    address: Address | Literal[""] = ""
    setup_file: str = ""
    processes: Count

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needed = {"DOCKER": "image", "PROCESS": "command", "EXTERNAL": "address"}.get(self.environment)
        if needed and not getattr(self, needed):
            raise ValueError(f"environment {self.environment} needs `{needed}`")
        return self


class JobServerSettings(Section):
    """The process that takes Beam jobs and hands them to Flink or Spark.

    Attributes:
        endpoint: host:port of one that runs already; empty: a run starts its own and stops it at its end.
        folder: where `make flink` and `make spark` put the jars; empty: `.job-servers` in the project.
        version: Beam version of the jars; empty: the installed one.
        java: the Java program, 17 or newer.
    """

    endpoint: Address | Literal[""] = ""
    folder: str = ""
    version: Annotated[str, Field(pattern=r"^(|\d+\.\d+\.\d+)$")] = ""
    java: Annotated[str, Field(min_length=1)]
    start_seconds: Count


class FlinkSettings(Section):
    """Apache Flink.

    Attributes:
        master: address of the cluster's REST endpoint (host:port), or "[local]" for a cluster inside the job server.
        version: Flink version of the job server; it must be the cluster's.
        job_server_jar: path of the jar; empty: the one in `job_server.folder`.
    """

    master: Annotated[str, Field(min_length=1)]
    version: Literal["1.19", "1.20", "2.0", "2.1", "2.2"]
    parallelism: Count
    job_server_jar: str = ""

    @field_validator("master")
    @classmethod
    def _address(cls, master: str) -> str:
        if master != FLINK_LOCAL and urlsplit(master if "://" in master else f"http://{master}").port is None:
            raise ValueError('master is "[local]" or host:port of the cluster')
        return master


class SparkSettings(Section):
    """Apache Spark 3; `job_server_jar` as Flink's."""

    master: str
    job_server_jar: str = ""

    @field_validator("master")
    @classmethod
    def _address(cls, master: str) -> str:
        if not _SPARK_MASTER.match(master):
            raise ValueError("master is local, local[N], spark://host:port, yarn or k8s://…")
        return master


class DataflowSettings(Section):
    """Google Cloud Dataflow; its documentation says what each value may be, and an empty one or 0 is its default.

    `temp_location` and `staging_location` are gs:// folders; `service_account` is the e-mail of the workers' account.
    """

    project: Annotated[str, Field(pattern=r"^(|([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9])$")] = ""
    region: Annotated[str, Field(pattern=r"^(|[a-z]+-[a-z]+[0-9]+)$")] = ""
    temp_location: Annotated[str, Field(pattern=r"^(|gs://[^/\s]+(/\S*)?)$")] = ""
    staging_location: Annotated[str, Field(pattern=r"^(|gs://[^/\s]+(/\S*)?)$")] = ""
    service_account: Annotated[str, Field(pattern=r"^(|[^@\s]+@[^@\s]+)$")] = ""
    machine_type: str = ""
    max_workers: Count
    disk_size_gb: Annotated[int, Field(ge=0)]
    network: str = ""
    subnetwork: str = ""
    public_ips: bool


class BeamSettings(Section):
    """Which Beam engine the Beam-powered stages run on, with `bike-pipeline run --runner beam`.

    Attributes:
        engine: "direct" (this machine), "flink", "spark", "portable" (any other engine with a Beam job server) or
            "dataflow".
        stages_at_once: how many independent stages run at the same time.
        pipeline_root: folder of the artifacts that the workers can reach as well; empty: `<workspace>/artifacts`.
        direct: Beam's own runner; every runner of this project uses it to run Beam on one machine.
        pipeline_args: further flags for Beam, as they are.
    """

    engine: Engine
    stages_at_once: Count
    pipeline_root: str = ""
    direct: DirectSettings
    workers: WorkerSettings
    job_server: JobServerSettings
    flink: FlinkSettings
    spark: SparkSettings
    dataflow: DataflowSettings
    pipeline_args: tuple[Annotated[str, Field(pattern=r"^--[A-Za-z_][A-Za-z0-9_-]*(=|$)")], ...]

    @field_validator("engine", mode="before")
    @classmethod
    def _sound_engines_only(cls, engine: object) -> object:
        if engine == "dask":
            raise ValueError(
                "Beam's Dask runner computes only the last transform's collection of a pipeline and loses the rest "
                "without an error (measured with Beam 2.77: ExampleGen wrote no train split); take flink or direct"
            )
        return engine

    @field_validator("pipeline_args")
    @classmethod
    def _no_second_word(cls, flags: tuple[str, ...]) -> tuple[str, ...]:
        for flag in flags:
            name = flag.removeprefix("--").partition("=")[0]
            if name in _OWN_FLAGS:
                raise ValueError(f"--{name} has a setting of its own: {_OWN_FLAGS[name]}")
        return flags

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.engine == "dataflow":
            missing = [name for name in ("project", "region", "temp_location") if not getattr(self.dataflow, name)]
            if missing:
                raise ValueError(f"engine dataflow needs dataflow.{', dataflow.'.join(missing)}")
            if not (self.workers.image or self.workers.setup_file):
                raise ValueError(
                    "engine dataflow needs workers.image or workers.setup_file: its machines have no code of ours"
                )
            if not self.pipeline_root.startswith("gs://"):
                raise ValueError("engine dataflow needs a pipeline_root in gs://: its machines see no local folder")
        if self.engine == "portable" and not self.job_server.endpoint:
            raise ValueError("engine portable needs job_server.endpoint")
        if self.engine in ("flink", "spark", "portable") and self.workers.environment == "LOOPBACK":
            self._reachable_from_the_cluster()
        return self

    def _reachable_from_the_cluster(self) -> None:
        master = {"flink": self.flink.master, "spark": self.spark.master}.get(self.engine, FLINK_LOCAL)
        places = [] if master == FLINK_LOCAL or _SPARK_LOCAL.match(master) else [master]
        for place in (*places, self.job_server.endpoint):
            host = urlsplit(place if "://" in place else f"//{place}").hostname
            if place and host not in _OWN_HOSTS:
                raise ValueError(
                    f"LOOPBACK workers are this process, which {self.engine} at {place} cannot reach; set "
                    "workers.environment to DOCKER, PROCESS or EXTERNAL"
                )

    @property
    def own_job_server(self) -> bool:
        """Whether the job server is on this machine: one that a run starts, or one that runs here already."""
        endpoint = self.job_server.endpoint
        return not endpoint or urlsplit(f"//{endpoint}").hostname in _OWN_HOSTS

    @property
    def worker_options(self) -> dict[str, str]:
        """Beam's options of the workers' environment."""
        environment = self.workers.environment
        config = {
            "DOCKER": self.workers.image,
            "PROCESS": json.dumps({"command": self.workers.command}),
            "EXTERNAL": self.workers.address,
        }.get(environment, "")
        return {"environment_type": environment} | ({"environment_config": config} if config else {})
