"""The Dataflow job of every Beam-powered stage, built as for a submission and not submitted; and what stops a run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bike_pipeline.errors import ConfigurationError, MissingExtraError
from bike_pipeline.runners.beam import preflight
from bike_pipeline.runners.beam_runner import beam_pipelines
from bike_pipeline.settings import load_settings
from tests.components.conftest import drive, generate
from tests.components.evaluating import World, lookup

ROOT = Path(__file__).resolve().parents[3]
CONFIG = ROOT / "configs" / "beam-dataflow.yaml"
IMAGE = "europe-west4-docker.pkg.dev/your-project/bikes/bike-pipeline-beam-worker:0.1.0"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A store with one month, its examples and the curated schema."""
    from tfx.types import standard_artifacts

    from bike_pipeline.data.embedded_dataset import embedded_bytes
    from bike_pipeline.data.ingest import ingest

    folder = tmp_path_factory.mktemp("dataflow")
    lines = embedded_bytes().decode().splitlines()
    month = [line for line in lines[1:] if line.split(",")[1].startswith("2011-03")]
    (folder / "march.csv").write_text("\n".join([lines[0], *month]) + "\n", encoding="utf-8")
    store = str(folder / "spans")
    ingest(load_settings(assignments=(f"data.store={store}",)), str(folder / "march.csv"))
    schema = standard_artifacts.Schema()
    schema.uri = str(folder / "schema")
    (folder / "schema").mkdir()
    (folder / "schema" / "schema.pbtxt").write_text((ROOT / "configs" / "schema.pbtxt").read_text())
    return SimpleNamespace(store=store, schema=schema, examples=generate(store, folder / "examples"), folder=folder)


class Jobs:
    """Makes the pipelines that the Beam runner makes for Dataflow, and keeps the jobs that come of them."""

    def __init__(self) -> None:
        """Let Beam build jobs without sending them."""
        settings = load_settings(CONFIG, ("beam.pipeline_args=[--no_pipeline_type_check, --dry_run=True]",))
        self._made: list[Any] = []
        with beam_pipelines(settings) as make:
            self._make = make

    def context(self) -> Any:
        from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor

        def make() -> Any:
            self._made.append(self._make("Transform"))
            return self._made[-1]

        return BaseBeamExecutor.Context(make_beam_pipeline_fn=make)

    @property
    def built(self) -> list[Any]:
        """Every job, as Dataflow's service would take it."""
        return [pipeline.runner.job for pipeline in self._made if hasattr(pipeline.runner, "job")]


def example_gen(inputs: Any, jobs: Jobs, tmp_path: Path) -> None:
    from bike_pipeline.components.example_gen import SpanExampleGenExecutor

    driven = drive(inputs.store, 1)
    driven.artifact.uri = str(tmp_path / "examples")
    SpanExampleGenExecutor(jobs.context()).Do({}, {"examples": [driven.artifact]}, driven.properties)


def statistics_gen(inputs: Any, jobs: Jobs, tmp_path: Path) -> None:
    from tfx.types import standard_artifacts

    from bike_pipeline.components.statistics_gen import StatisticsGenExecutor

    output = standard_artifacts.ExampleStatistics()
    output.uri = str(tmp_path / "statistics")
    StatisticsGenExecutor(jobs.context()).Do(
        {"examples": [inputs.examples], "schema": [inputs.schema]},
        {"statistics": [output]},
        {"in_memory_rows": 10**6, "exclude_splits": json.dumps([])},
    )


def transform(inputs: Any, jobs: Jobs, tmp_path: Path) -> None:
    from tfx.proto import transform_pb2
    from tfx.types import standard_artifacts
    from tfx.utils import proto_utils

    from bike_pipeline.components.transform import TransformExecutor

    graph = standard_artifacts.TransformGraph()
    graph.uri = str(tmp_path / "graph")
    splits = transform_pb2.SplitsConfig(analyze=["train"], transform=["eval"])
    TransformExecutor(jobs.context()).Do(
        {"examples": [inputs.examples], "schema": [inputs.schema]},
        {"transform_graph": [graph]},
        {
            "preprocessing_fn": "bike_pipeline.modeling.preprocessing.preprocessing_fn",
            "splits_config": proto_utils.proto_to_json(splits),
            "disable_statistics": 1,
            "custom_config": "null",
            "in_memory_rows": 10**6,
        },
    )


def evaluator(inputs: Any, jobs: Jobs, tmp_path: Path, exported: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from bike_pipeline.components import evaluator as component

    kind = component.EvaluatorExecutor
    monkeypatch.setattr(component, "EvaluatorExecutor", lambda *_: kind(jobs.context()))
    World(tmp_path, exported.path, inputs.examples, inputs.schema).evaluate("dataflow", lookup("none"))


@pytest.mark.slow
@pytest.mark.parametrize("stage", [example_gen, statistics_gen, transform, evaluator])
def test_the_job_of_a_stage_is_complete(stage: Any, inputs: Any, request: Any, tmp_path: Path) -> None:
    from apache_beam.runners.dataflow.internal import apiclient

    jobs = Jobs()
    more = (request.getfixturevalue("exported"), request.getfixturevalue("monkeypatch")) if stage is evaluator else ()
    # Nothing runs, so a stage that reads what its job should have written finds nothing.
    with contextlib.suppress(Exception):
        stage(inputs, jobs, tmp_path, *more)
    (job,) = jobs.built
    assert job.proto.name.startswith("bike-demand-")
    environment = apiclient.Environment(
        packages=[],
        options=job.options,
        environment_version="7",
        proto_pipeline_staged_url="gs://your-bucket/tmp/pipeline.pb",
        proto_pipeline=job.proto_pipeline,
    ).proto
    (pool,) = environment.worker_pools
    assert environment.service_account_email == "bike-pipeline@your-project.iam.gserviceaccount.com"
    assert (pool.machine_type, pool.autoscaling_settings.max_num_workers) == ("n2-standard-4", 8)
    assert pool.subnetwork == "regions/europe-west4/subnetworks/default"
    assert [image.container_image for image in pool.sdk_harness_container_images] == [IMAGE]
    steps = job.proto_pipeline.components.transforms
    assert len(steps) > 5
    assert {e.urn for e in job.proto_pipeline.components.environments.values()} == {"beam:env:docker:v1"}


def test_a_run_without_credentials_says_so_before_anything_starts(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("GOOGLE_", "CLOUDSDK_"))}
    done = subprocess.run(
        [
            sys.executable, "-m", "bike_pipeline.cli", "run", "--runner", "beam", "--json", "--config", str(CONFIG),
            "--set", f"workspace={tmp_path / 'workspace'}",
        ],
        cwd=ROOT,
        # Without it the library looks for a metadata server in the network.
        env={**environment, "NO_GCE_CHECK": "true", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 9, done.stderr
    assert "engine dataflow needs Google credentials" in done.stderr
    assert "gcloud auth application-default login" in done.stderr
    assert not (tmp_path / "workspace" / "metadata.sqlite").exists()


def test_a_local_span_store_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="cannot read a span store in a local folder"):
        preflight.check(load_settings(CONFIG, ("data.store=/mnt/spans",)))


def test_absent_client_libraries_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apache_beam.runners.dataflow.internal.apiclient", None)
    monkeypatch.delattr("apache_beam.runners.dataflow.internal.apiclient", raising=False)
    with pytest.raises(MissingExtraError, match="needs Google's client libraries"):
        preflight.check(load_settings(CONFIG))


def test_a_setup_file_that_is_not_there() -> None:
    settings = load_settings(CONFIG, ("beam.workers.setup_file=/nowhere/setup.py",))
    with pytest.raises(ConfigurationError, match=r"there is no setup\.py"):
        preflight.check(settings)


def test_a_setup_file_carries_the_code_of_every_stage(tmp_path: Path) -> None:
    import tarfile

    from apache_beam.runners.portability.stager import Stager

    # A copy, since packing leaves its traces beside the setup file.
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("bike_pipeline", "runners"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "out").mkdir()
    packed = Stager._build_setup_package(str(tmp_path / "setup.py"), str(tmp_path / "out"))
    with tarfile.open(packed) as content:
        names = {name.partition("/")[2] for name in content.getnames()}
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "bike_pipeline").rglob("*.py")}
    assert modules <= names


def test_flink_without_its_jar_stops_a_run_before_it_starts(tmp_path: Path) -> None:
    settings = load_settings(assignments=("beam.engine=flink", f"beam.job_server.folder={tmp_path}"))
    with pytest.raises(MissingExtraError):
        preflight.check(settings)


def test_the_direct_engine_needs_nothing() -> None:
    preflight.check(load_settings())
