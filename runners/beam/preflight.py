"""What an engine needs, looked at before anything of a run starts."""

from __future__ import annotations

from pathlib import Path

from bike_pipeline.errors import ConfigurationError, MissingExtraError
from bike_pipeline.runners.beam import flink_cluster, job_server_programs
from bike_pipeline.settings import Settings


def check(settings: Settings) -> None:
    """Stop where the engine of the settings cannot work.

    Raises:
        ConfigurationError: a file that the settings name is not there, or workers could not reach the data.
        MissingExtraError: Java, a job server's jar or Google credentials are missing.
        ClusterError: the Flink cluster does not answer.
    """
    beam = settings.beam
    if beam.engine == "direct":
        return
    setup_file = beam.workers.setup_file
    if setup_file and (Path(setup_file).name != "setup.py" or not Path(setup_file).expanduser().is_file()):
        raise ConfigurationError(
            "there is no setup.py", where=f"beam.workers.setup_file {setup_file}", fix="name this project's setup.py"
        )
    if beam.engine == "dataflow":
        _dataflow(settings)
        return
    if beam.workers.environment == "DOCKER":
        _containers(settings)
    if beam.engine in ("flink", "spark") and not beam.job_server.endpoint:
        job_server_programs.require(beam, beam.engine)
    if beam.engine == "flink":
        flink_cluster.check(beam)


def _containers(settings: Settings) -> None:
    """Stop where workers in containers would see no data: Beam mounts no folder into them."""
    root = settings.beam.pipeline_root
    for place, where, example in (
        (settings.store_uri, "data.store", "gs://BUCKET/spans"),
        (root or settings.pipeline_root, "beam.pipeline_root", "gs://BUCKET/artifacts"),
    ):
        if "://" not in place:
            raise ConfigurationError(
                "Beam mounts no folder into the containers of DOCKER workers, so they do not see it",
                where=f"{where} {place}",
                fix=f"keep it in object storage (--set {where}={example}), or take PROCESS or EXTERNAL workers on "
                "machines that mount it",
            )


def _dataflow(settings: Settings) -> None:
    if "://" not in settings.store_uri:
        raise ConfigurationError(
            "Dataflow's machines cannot read a span store in a local folder",
            where=f"data.store {settings.store_uri}",
            fix="keep the spans in object storage: --set data.store=gs://BUCKET/spans",
        )
    try:
        import google.auth
        from apache_beam.io.gcp import gcsio
        from apache_beam.runners.dataflow.internal import apiclient
        from google.auth.exceptions import GoogleAuthError
    except ImportError as error:
        raise MissingExtraError(
            f"engine dataflow needs Google's client libraries ({error})",
            where="beam.engine",
            fix="run `pip install 'apache-beam[gcp]'` in this environment",
        ) from None
    del gcsio, apiclient
    try:
        google.auth.default()
    except GoogleAuthError as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MissingExtraError(
            f"engine dataflow needs Google credentials ({first.rstrip('.')})",
            where="Google Cloud",
            fix="run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to a key file",
        ) from None
