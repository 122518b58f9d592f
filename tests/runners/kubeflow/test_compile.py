"""What the compiler mends, what it refuses, and what the settings add."""

import json
from typing import TypedDict

import pytest
import yaml
from click.testing import CliRunner
from google.protobuf import json_format
from kfp import components
from kfp.kubernetes import kubernetes_executor_config_pb2 as kubernetes_pb
from kfp.pipeline_spec import pipeline_spec_pb2 as pb
from tfx.dsl.component.experimental.annotations import Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.dsl.components.common.importer import Importer
from tfx.dsl.components.common.resolver import Resolver
from tfx.dsl.input_resolution.strategies.latest_artifact_strategy import LatestArtifactStrategy
from tfx.orchestration import data_types
from tfx.orchestration.pipeline import Pipeline
from tfx.types import standard_artifacts
from tfx.types.channel import Channel

from bike_pipeline.commands.cluster import compile_command as command
from bike_pipeline.errors import ConfigurationError, MissingExtraError, StorageError
from bike_pipeline.runners.kubeflow import go_yaml
from bike_pipeline.runners.kubeflow.acceptance import refusals
from bike_pipeline.runners.kubeflow.compiler import compile_pipeline, compiled, vertex_job
from bike_pipeline.runners.kubeflow.spec import NEVER_CACHED, compile_definition
from bike_pipeline.settings import PROJECT_ROOT, load_settings
from bike_pipeline.stages import Stage

FULL = PROJECT_ROOT / "configs" / "kubeflow.yaml"
VERTEX = PROJECT_ROOT / "configs" / "vertex.yaml"


class Started(TypedDict):
    number: int


class Doubled(TypedDict):
    twice: int


@component
def Number(start: Parameter[int]) -> Started:  # noqa: N802 (as TFX names components)
    return {"number": start}


@component
def Twice(number: Parameter[int]) -> Doubled:  # noqa: N802
    return {"twice": 2 * number}


def small(*nodes):
    return compile_definition(Pipeline("small", "/nowhere", components=list(nodes)), "image:1", "kubeflow")


@pytest.fixture(scope="module")
def full():
    return compiled(load_settings(FULL))


def test_kubeflows_own_schemas_take_both_documents(full, tmp_path):
    spec, platform = full
    parsed = json_format.ParseDict(spec, pb.PipelineSpec())
    assert parsed.schema_version == "2.1.0"
    json_format.ParseDict(spec["deploymentSpec"], pb.PipelineDeploymentConfig())
    json_format.ParseDict(platform, pb.PlatformSpec())
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert set(executors) == set(spec["deploymentSpec"]["executors"])
    for config in executors.values():
        json_format.ParseDict(config, kubernetes_pb.KubernetesExecutorConfig())
    file = compile_pipeline(load_settings(FULL), "kubeflow", tmp_path / "pipeline.yaml")
    assert components.load_component_from_file(str(file)).platform_spec.platforms["kubernetes"]


def test_a_parameter_that_is_an_output_names_the_task_that_makes_it():
    number = Number(start=1)
    spec = small(number, Twice(number=number.outputs["number"].future()[0].value))
    source = spec["root"]["dag"]["tasks"]["Twice"]["inputs"]["parameters"]["number"]["taskOutputParameter"]
    assert source["producerTask"] == "Number"


def test_names_that_argo_refuses_are_changed_together_with_every_reference():
    number = Number(start=1).with_id("first.number_1")
    spec = small(number, Twice(number=number.outputs["number"].future()[0].value))
    tasks = spec["root"]["dag"]["tasks"]
    assert set(tasks) == {"first-number-1", "Twice"}
    assert tasks["first-number-1"]["taskInfo"]["name"] == "first-number-1"
    assert tasks["Twice"]["dependentTasks"] == ["first-number-1"]
    assert tasks["Twice"]["inputs"]["parameters"]["number"]["taskOutputParameter"]["producerTask"] == "first-number-1"


def test_two_names_that_become_one_are_refused():
    with pytest.raises(ConfigurationError, match="the same to Argo"):
        small(Number(start=1).with_id("a.b"), Number(start=2).with_id("a_b"))


def test_a_runtime_parameter_keeps_its_default():
    start = data_types.RuntimeParameter("start", int, default=7)
    spec = small(Number(start=start))
    assert spec["root"]["inputDefinitions"]["parameters"]["start"]["defaultValue"] == 7


def test_what_kubeflow_would_refuse_only_at_the_run_is_refused_here():
    latest = Resolver(strategy_class=LatestArtifactStrategy, model=Channel(type=standard_artifacts.Model))
    with pytest.raises(ConfigurationError, match="refuses the run") as error:
        small(latest.with_id("latest"))
    assert error.value.where == "latest"
    local = Importer(source_uri="/data/model", artifact_type=standard_artifacts.Model).with_id("imported")
    with pytest.raises(ConfigurationError, match="imports from gs, s3, minio and oci only"):
        small(local)
    assert small(Importer(source_uri="s3://b/model", artifact_type=standard_artifacts.Model).with_id("imported"))


def test_what_tfx_cannot_compile_is_one_error():
    class Odd(standard_artifacts.Model):
        TYPE_NAME = "Odd"

    odd = Importer(source_uri="s3://b/model", artifact_type=Odd).with_id("odd")
    with pytest.raises(ConfigurationError, match="TFX cannot compile"):
        small(odd)


def test_the_stages_of_the_settings_are_those_of_the_pipeline():
    found = set()
    for more in ((), ("tuning.enabled=true",), ("tuning.import_best=true",)):
        spec, _ = compiled(load_settings(assignments=("training.warm_start=true", *more)))
        found |= set(spec["root"]["dag"]["tasks"])
    assert found == set(Stage)


def test_kfp_never_caches_what_looks_at_data_or_models_from_outside(full):
    tasks = full[0]["root"]["dag"]["tasks"]
    off = {name for name, task in tasks.items() if task["cachingOptions"] == {}}
    assert off == NEVER_CACHED & set(tasks)
    spec, _ = compiled(load_settings(assignments=("kubeflow.caching=false",)))
    assert all(task["cachingOptions"] == {} for task in spec["root"]["dag"]["tasks"].values())


def test_a_baseline_reset_is_accepted_for_one_run_and_never_by_the_spec(full):
    spec, _ = full
    assert spec["root"]["inputDefinitions"]["parameters"]["accept_baseline_reset"]["defaultValue"] == 0
    lookup = spec["root"]["dag"]["tasks"]["BaselineLookup"]["inputs"]["parameters"]["accept_baseline_reset"]
    assert lookup == {"componentInputParameter": "accept_baseline_reset"}


def test_resources_secrets_and_places_of_a_stage(full):
    spec, platform = full
    container = spec["deploymentSpec"]["executors"]["Trainer_executor"]["container"]
    assert container["resources"] == {
        "resourceCpuLimit": "4",
        "resourceCpuRequest": "4",
        "resourceMemoryLimit": "16Gi",
        "resourceMemoryRequest": "16Gi",
        "accelerator": {"resourceType": "nvidia.com/gpu", "resourceCount": "1"},
    }
    assert container["env"] == [{"name": "AWS_REGION", "value": "eu-central-1"}]
    assert spec["root"]["dag"]["tasks"]["Trainer"]["retryPolicy"]["maxRetryCount"] == 1
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    trainer = executors["Trainer_executor"]
    assert trainer["nodeSelector"] == {"labels": {"cloud.example.com/pool": "gpu"}}
    assert trainer["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert trainer["imagePullSecret"][0]["secretName"] == "registry-login"
    names = {entry["envVar"]: secret["secretName"] for secret in trainer["secretAsEnv"] for entry in secret["keyToEnv"]}
    assert names["BIKE_METADATA_PASSWORD"] == "bike-metadata"
    assert "nodeSelector" not in executors["Pusher_executor"]
    gate = spec["deploymentSpec"]["executors"]["DataGate_executor"]["container"]["resources"]
    assert gate["resourceMemoryLimit"] == "4Gi"
    assert "accelerator" not in gate


def test_every_text_of_the_settings_is_a_text_to_kubeflow(tmp_path):
    texts = ["65e3", "1E5", ".5e1", "08", "0o17", "-0o7", "1_0", "0b1", "on", "y", "~", "1:30", "2026-11-28", "12e3456"]
    variables = ", ".join(f"V{number}: '{text}'" for number, text in enumerate(texts))
    settings = load_settings(
        assignments=(
            f"workspace={tmp_path}",
            f"kubeflow.environment={{{variables}}}",
            "kubeflow.default_resources.node_selector={pool: '1e3', '08': 'on'}",
            "kubeflow.image=registry.example.com/bikes:65e3",
        )
    )
    written = compile_pipeline(settings, "kubeflow").read_text(encoding="utf-8")
    assert list(refusals(written)) == []
    spec, platform = go_yaml.load_all(written)
    assert (spec, platform) == compiled(settings)
    for name, executor in spec["deploymentSpec"]["executors"].items():
        assert [
            entry["value"] for entry in sorted(executor["container"]["env"], key=lambda e: int(e["name"][1:]))
        ] == texts
        config = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][name]
        assert config["nodeSelector"]["labels"] == {"pool": "1e3", "08": "on"}


def test_a_retry_may_come_however_long_an_attempt_took(full):
    policies = {
        name: task["retryPolicy"] for name, task in full[0]["root"]["dag"]["tasks"].items() if "retryPolicy" in task
    }
    assert set(policies) == {"CsvExampleGen", "Transform", "Trainer", "Evaluator"}
    for policy in policies.values():
        # Argo counts it from the first attempt's start.
        assert int(policy["backoffMaxDuration"].removesuffix("s")) >= 7 * 24 * 3600
    vertex = vertex_job(load_settings(VERTEX, ("kubeflow.default_resources.retries=1",)))
    policy = vertex["pipelineSpec"]["root"]["dag"]["tasks"]["Trainer"]["retryPolicy"]
    assert "backoffMaxDuration" not in policy, "Vertex AI allows an hour, and takes it where nothing is said"


def test_no_secret_stands_in_the_spec(monkeypatch):
    monkeypatch.setenv("BIKE_METADATA_PASSWORD", "not-to-be-told")
    assert "not-to-be-told" not in json.dumps(compiled(load_settings(FULL)))


def test_vertex_ai_gets_a_job_with_numbers_for_resources():
    job = vertex_job(load_settings(VERTEX))
    parsed = json_format.ParseDict(job, pb.PipelineJob())
    assert parsed.runtime_config.gcs_output_directory == "gs://example-ml/vertex"
    resources = job["pipelineSpec"]["deploymentSpec"]["executors"]["Trainer_executor"]["container"]["resources"]
    assert resources == {
        "cpuLimit": 8.0,
        "memoryLimit": 32.212255,
        "accelerator": {"type": "NVIDIA_L4", "count": "1"},
    }


@pytest.mark.parametrize(
    ("assignments", "told"),
    [
        (("kubeflow.vertex.pipeline_root=''",), "kubeflow.vertex.pipeline_root"),
        (("kubeflow.vertex.span_store=''",), "kubeflow.vertex.span_store"),
        (("kubeflow.secrets=[{name: a, keys: {b: C}}]",), "no Kubernetes secrets"),
        (
            ("kubeflow.metadata={sqlite_file: /mnt/bike-pipeline/m.sqlite, mysql: null}",),
            "no volume that could hold a SQLite file",
        ),
    ],
)
def test_vertex_ai_says_what_it_lacks(assignments, told, tmp_path):
    settings = load_settings(VERTEX, assignments)
    with pytest.raises(ConfigurationError) as error:
        compile_pipeline(settings, "vertex", tmp_path / "job.json")
    assert told in str(error.value)


def test_a_schema_outside_the_project_is_not_in_the_image(tmp_path):
    schema = tmp_path / "schema.pbtxt"
    schema.write_bytes((PROJECT_ROOT / "configs" / "schema.pbtxt").read_bytes())
    with pytest.raises(ConfigurationError, match="the image does not hold it"):
        compiled(load_settings(assignments=(f"schema_file={schema}",)))


def test_an_engine_outside_the_tasks_is_refused_and_not_left_aside():
    with pytest.raises(ConfigurationError, match="in its own container, never on 'flink'"):
        compiled(load_settings(assignments=("beam.engine=flink",)))


def test_the_file_must_fit_the_target_and_be_writable(tmp_path):
    settings = load_settings(assignments=(f"workspace={tmp_path}",))
    with pytest.raises(ConfigurationError, match=r"takes a \.yaml file"):
        compile_pipeline(settings, "kubeflow", tmp_path / "job.json")
    (tmp_path / "taken").write_text("a file", encoding="utf-8")
    with pytest.raises(StorageError, match="cannot write it"):
        compile_pipeline(settings, "kubeflow", tmp_path / "taken" / "p.yaml")


def test_without_the_extra_there_is_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr("bike_pipeline.extras.missing", lambda extra: ("kfp",))
    with pytest.raises(MissingExtraError, match="needs the extra 'kubeflow'"):
        compile_pipeline(load_settings(assignments=(f"workspace={tmp_path}",)), "kubeflow")


def test_the_command_prints_the_file_and_nothing_else(tmp_path, capfd):
    result = CliRunner().invoke(command, ["--set", f"workspace={tmp_path}"])
    assert result.exit_code == 0, result.output
    path = tmp_path / "kubeflow" / "bike-demand.yaml"
    assert (result.output, capfd.readouterr().out) == (f"{path}\n", "")
    assert len(list(yaml.safe_load_all(path.read_text(encoding="utf-8")))) == 2
