"""Beam's flags for each engine. They never become part of a stage's parameters, and so of no cache key."""

from __future__ import annotations

from bike_pipeline.settings.beam import BeamSettings


def direct_flags(beam: BeamSettings) -> list[str]:
    """Return the flags of Beam's own runner on this machine.

    DirectRunner would try Prism first: a program that it downloads, unpinned, or fails to. FnApiRunner is what it
    falls back to.
    """
    flags = ["--runner=FnApiRunner", f"--direct_num_workers={beam.direct.workers}"]
    if beam.direct.mode != "in_memory":
        flags.append(f"--direct_running_mode={beam.direct.mode}")
    return [*flags, *beam.pipeline_args]


def engine_flags(beam: BeamSettings, job_endpoint: str = "", job_name: str = "") -> list[str]:
    """Return the flags of the engine that the settings name.

    Args:
        beam: the settings.
        job_endpoint: host:port of the job server, for engines that have one.
        job_name: name that the engine shows; without it Flink and Spark show BeamApp, user and time.
    """
    if beam.engine == "direct":
        return direct_flags(beam)
    if beam.engine == "dataflow":
        return [*_dataflow_flags(beam, job_name), *beam.pipeline_args]
    flags = ["--runner=PortableRunner", f"--job_endpoint={job_endpoint}"]
    flags += [f"--{name}={value}" for name, value in beam.worker_options.items()]
    flags.append(f"--sdk_worker_parallelism={beam.workers.processes}")
    # Workers outlive one bundle for so long; without it each of Flink's tasks imports TensorFlow anew.
    flags.append("--environment_cache_millis=60000")
    if beam.engine == "flink":
        flags += [f"--parallelism={beam.flink.parallelism}", f"--flink_master={beam.flink.master}"]
    if beam.engine == "spark":
        flags.append(f"--spark_master_url={beam.spark.master}")
    if job_name:
        flags.append(f"--job_name={job_name}")
    if beam.workers.setup_file:
        flags.append(f"--setup_file={beam.workers.setup_file}")
    return [*flags, *beam.pipeline_args]


def _dataflow_flags(beam: BeamSettings, job_name: str) -> list[str]:
    dataflow = beam.dataflow
    named = {
        "project": dataflow.project,
        "region": dataflow.region,
        "temp_location": dataflow.temp_location,
        "staging_location": dataflow.staging_location,
        "service_account_email": dataflow.service_account,
        "machine_type": dataflow.machine_type,
        "max_num_workers": str(dataflow.max_workers),
        "disk_size_gb": str(dataflow.disk_size_gb or ""),
        "network": dataflow.network,
        "subnetwork": dataflow.subnetwork,
        "sdk_container_image": beam.workers.image,
        "setup_file": beam.workers.setup_file,
        "job_name": job_name,
    }
    flags = ["--runner=DataflowRunner"]
    flags += [f"--{name}={value}" for name, value in named.items() if value]
    flags.append("--use_public_ips" if dataflow.public_ips else "--no_use_public_ips")
    return flags
