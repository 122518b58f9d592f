"""Each engine gets the flags that Beam itself understands, and nothing else changes with them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from apache_beam.options import pipeline_options as options
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.portability.api import beam_job_api_pb2
from apache_beam.runners import create_runner
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.transforms import environments

from bike_pipeline.runners.beam.flags import direct_flags, engine_flags
from bike_pipeline.runners.beam_runner import beam_pipelines
from bike_pipeline.runners.stage_launcher import beam_operator
from bike_pipeline.settings import load_settings

ROOT = Path(__file__).resolve().parents[3]
OVERLAYS = sorted((ROOT / "configs").glob("beam-*.yaml"))


def beam(*assignments, config=None):
    return load_settings(config, tuple(f"beam.{text}" for text in assignments)).beam


def parsed(flags):
    """Return what Beam makes of the flags; a flag that it does not know is an error."""
    known = options.PipelineOptions(flags)
    given = {flag.removeprefix("--").partition("=")[0] for flag in flags}
    unknown = given - set(known.get_all_options()) - {"no_pipeline_type_check", "no_use_public_ips"}
    assert unknown == set()
    return known


def test_the_direct_runner_is_the_one_that_downloads_nothing():
    known = parsed(engine_flags(beam()))
    assert known.view_as(options.StandardOptions).runner == "FnApiRunner"
    assert known.view_as(options.DirectOptions).direct_num_workers == 1
    assert known.view_as(options.DirectOptions).direct_running_mode == "in_memory"
    assert known.view_as(options.TypeOptions).pipeline_type_check is False


def test_several_direct_workers():
    known = parsed(direct_flags(beam("direct={workers: 3, mode: multi_processing}")))
    assert known.view_as(options.DirectOptions).direct_num_workers == 3
    assert known.view_as(options.DirectOptions).direct_running_mode == "multi_processing"


@pytest.mark.parametrize("overlay", OVERLAYS, ids=[path.stem for path in OVERLAYS])
def test_every_example_is_valid_for_us_and_for_beam(overlay):
    settings = beam(config=overlay)
    # A dry run asks Google for nothing.
    known = parsed([*engine_flags(settings, "localhost:1234", "bike-demand"), "--dry_run=True"])
    runner = "DataflowRunner" if settings.engine == "dataflow" else "PortableRunner"
    assert known.view_as(options.StandardOptions).runner == runner
    assert PipelineOptionsValidator(known, create_runner(runner)).validate() == []


def test_there_is_an_example_of_every_engine():
    assert {beam(config=overlay).engine for overlay in OVERLAYS} == {"flink", "spark", "dataflow"}


def test_flink_on_a_cluster_with_containers():
    known = parsed(
        engine_flags(
            beam("engine=flink", "flink={master: 'h:8081', parallelism: 4}", "workers={environment: DOCKER, image: i}"),
            "localhost:5",
        )
    )
    assert known.view_as(options.PortableOptions).job_endpoint == "localhost:5"
    assert known.view_as(options.PortableOptions).environment_type == "DOCKER"
    assert known.view_as(options.PortableOptions).environment_config == "i"
    assert known.view_as(options.FlinkRunnerOptions).parallelism == 4
    assert known.view_as(options.FlinkRunnerOptions).flink_master == "h:8081"


@pytest.mark.parametrize(
    ("workers", "urn", "payload"),
    [
        ("{environment: LOOPBACK}", "beam:env:external:v1", None),
        ("{environment: DOCKER, image: 'example.com/bikes:1'}", "beam:env:docker:v1", b"example.com/bikes:1"),
        ("{environment: PROCESS, command: /opt/boot}", "beam:env:process:v1", b"/opt/boot"),
        ("{environment: EXTERNAL, address: 'pool:50000'}", "beam:env:external:v1", b"pool:50000"),
    ],
)
def test_beam_makes_the_environment_that_the_settings_mean(workers, urn, payload):
    known = parsed(engine_flags(beam("engine=flink", f"workers={workers}"), "localhost:5"))
    portable = known.view_as(options.PortableOptions)
    if portable.environment_type == "LOOPBACK":
        # Beam starts the worker pool for it in this process when a pipeline runs.
        assert portable.environment_config is None
        return
    made = environments.Environment.from_options(portable).to_runner_api(None)
    assert made.urn == urn
    assert payload in made.payload


def test_spark_and_user_code_by_setup_file():
    settings = beam("engine=spark", "spark.master=local[4]", f"workers.setup_file={ROOT / 'setup.py'}")
    known = parsed(engine_flags(settings, "localhost:5"))
    assert known.view_as(options.SparkRunnerOptions).spark_master_url == "local[4]"
    assert known.view_as(options.SetupOptions).setup_file == str(ROOT / "setup.py")


@pytest.mark.parametrize("engine", ["flink", "spark"])
def test_a_job_has_the_name_of_its_stage_where_the_engine_shows_it(engine, monkeypatch):
    taken = []
    monkeypatch.setattr("bike_pipeline.runners.beam.job_server._answers", lambda endpoint, seconds: True)
    monkeypatch.setattr("apache_beam.Pipeline", lambda *, argv: taken.append(argv))
    given = (f"beam.engine={engine}", "beam.job_server.endpoint=localhost:1")
    with beam_pipelines(load_settings(assignments=given)) as make:
        make("StatisticsGen")
    service = SimpleNamespace(
        DescribePipelineOptions=lambda *_, **__: beam_job_api_pb2.DescribePipelineOptionsResponse()
    )
    job = JobServiceHandle(service, parsed(taken[0]))
    # What the job server names Flink's and Spark's jobs by; without it they are all called BeamApp.
    name = job.get_pipeline_options()["beam:option:job_name:v1"]
    assert name.startswith("bike-demand-statisticsgen-")


def test_the_operator_says_which_stage_a_pipeline_is_for(monkeypatch):
    taken = []
    monkeypatch.setattr(
        "tfx.orchestration.portable.beam_executor_operator.BeamExecutorOperator.run_executor",
        lambda self, information, make: taken.append(make()),
    )
    kind = beam_operator(lambda stage: f"pipeline of {stage}")
    operator = kind.__new__(kind)
    node = SimpleNamespace(node_info=SimpleNamespace(id="Transform"))
    operator.run_executor(SimpleNamespace(pipeline_node=node))
    assert taken == ["pipeline of Transform"]


def test_raw_flags_come_last():
    assert engine_flags(beam("pipeline_args=[--job_server_timeout=7]"))[-1] == "--job_server_timeout=7"


def test_dataflow_is_told_everything():
    known = parsed(
        engine_flags(
            beam("dataflow.network=vpc", "dataflow.disk_size_gb=30", config=ROOT / "configs" / "beam-dataflow.yaml"),
            job_name="bike-demand",
        )
    )
    cloud, workers = known.view_as(options.GoogleCloudOptions), known.view_as(options.WorkerOptions)
    assert (cloud.project, cloud.region, cloud.job_name) == ("your-project", "europe-west4", "bike-demand")
    assert cloud.temp_location == "gs://your-bucket/tmp"
    assert cloud.service_account_email == "bike-pipeline@your-project.iam.gserviceaccount.com"
    assert (workers.machine_type, workers.max_num_workers, workers.disk_size_gb) == ("n2-standard-4", 8, 30)
    assert (
        workers.sdk_container_image == "europe-west4-docker.pkg.dev/your-project/bikes/bike-pipeline-beam-worker:0.1.0"
    )
    assert (workers.network, workers.subnetwork) == ("vpc", "regions/europe-west4/subnetworks/default")
    assert workers.use_public_ips is False
