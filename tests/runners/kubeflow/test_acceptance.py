from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from bike_pipeline.errors import ConfigurationError
from bike_pipeline.runners.kubeflow import go_yaml
from bike_pipeline.runners.kubeflow.acceptance import check, refusals

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.yaml"))


def tasks_of(pipeline):
    return pipeline["root"]["dag"]["tasks"]


def rename(pipeline, _platform):
    tasks_of(pipeline)["Data.Gate_1"] = tasks_of(pipeline).pop("DataGate")


def resolver(pipeline, _platform):
    pipeline["deploymentSpec"]["executors"]["BaselineLookup_executor"] = {"resolver": {}}


def stock_producer(pipeline, _platform):
    source = next(iter(tasks_of(pipeline)["Evaluator"]["inputs"]["artifacts"].values()))
    source["taskOutputArtifact"]["producerTask"] += "_task"


def dangling_dependency(pipeline, _platform):
    tasks_of(pipeline)["Pusher"]["dependentTasks"] = ["Infra"]


def no_default(pipeline, _platform):
    for parameter in pipeline["root"]["inputDefinitions"]["parameters"].values():
        parameter.pop("defaultValue", None)
        parameter.pop("isOptional", None)


def null_name(pipeline, _platform):
    pipeline["pipelineInfo"]["name"] = None


def wrong_kind(pipeline, _platform):
    tasks_of(pipeline)["Trainer"]["cachingOptions"] = {"enableCache": "always"}


def unknown_field(pipeline, _platform):
    tasks_of(pipeline)["Trainer"]["resources"] = {}


def local_import(pipeline, _platform):
    pipeline["deploymentSpec"]["executors"]["Pusher_executor"] = {
        "importer": {"artifactUri": {"constant": "/mnt/schema"}}
    }


def old_schema(pipeline, _platform):
    pipeline["schemaVersion"] = "2.0.0"


def lost_executor(pipeline, _platform):
    del pipeline["deploymentSpec"]["executors"]["Trainer_executor"]


def no_parameter(pipeline, _platform):
    pipeline["root"]["inputDefinitions"]["parameters"].clear()


def upper_case(pipeline, _platform):
    pipeline["pipelineInfo"]["name"] = "Bike Demand"


def of_nobody(_pipeline, platform):
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    executors["Trainer"] = executors.pop("Trainer_executor")


def unknown_platform_field(_pipeline, platform):
    platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["Trainer_executor"]["gpu"] = 1


def twice_mounted(_pipeline, platform):
    executor = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["Trainer_executor"]
    executor["pvcMount"] = [{"constant": "data", "mountPath": f"/mnt/{letter}"} for letter in "ab"]


def other_platform(_pipeline, platform):
    platform["platforms"]["nomad"] = platform["platforms"].pop("kubernetes")


def never_retried(pipeline, _platform):
    tasks_of(pipeline)["Trainer"]["retryPolicy"] = {"maxRetryCount": 2, "backoffDuration": "30s"}


BREAKS = (
    (rename, "task name 'Data.Gate_1'"),
    (resolver, "non-container and non-importer executor not implemented"),
    (stock_producer, '_task"'),
    (dangling_dependency, "'Infra', which is no task"),
    (no_default, "neither default value nor user provided"),
    (null_name, "name"),
    (wrong_kind, "invalid v2 pipeline spec"),
    (unknown_field, "invalid v2 pipeline spec"),
    (local_import, "not '/mnt/schema'"),
    (old_schema, "only supports schema version 2.1.0"),
    (lost_executor, "not found in deployment config"),
    (no_parameter, "which is not there"),
    (upper_case, "'Bike Demand'"),
    (of_nobody, "would be dropped"),
    (unknown_platform_field, "Trainer_executor"),
    (twice_mounted, "duplicate volume"),
    (other_platform, "would be dropped"),
    (never_retried, "retries without backoffMaxDuration never come"),
)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_what_is_compiled_is_taken(path):
    assert list(refusals(path.read_text(encoding="utf-8"))) == []


def test_the_names_of_the_tasks_are_returned():
    assert {"CsvExampleGen", "Trainer", "Pusher"} <= check(GOLDEN[0].read_text(encoding="utf-8"))


@pytest.mark.parametrize(("broken", "words"), BREAKS, ids=[broken.__name__ for broken, _ in BREAKS])
def test_each_way_of_breaking_it_is_refused_with_its_reason(broken, words):
    pipeline, platform = yaml.safe_load_all(GOLDEN[0].read_text(encoding="utf-8"))
    broken(pipeline, platform)
    with pytest.raises(ConfigurationError, match="would refuse the spec") as error:
        check(yaml.safe_dump_all([pipeline, platform]))
    assert any(words in reason for reason in refusals(yaml.safe_dump_all([pipeline, platform])))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1", "not YAML"),
        ("", "no pipeline spec"),
        ("just text", "no pipeline spec"),
        (json.dumps({"displayName": "x", "pipelineSpec": {}, "runtimeConfig": {}}), "unknown template format"),
    ],
)
def test_what_is_no_spec_is_told_apart(text, words):
    with pytest.raises(ConfigurationError, match=words):
        check(text)


@pytest.mark.parametrize("value", ["65e3", "1E5", "1e-3", "1.5e3", ".5e1", "08", "0o17", "-0o7"])
def test_a_text_that_kubeflow_reads_as_a_number_is_refused_before_a_run_is_made(value):
    pipeline, platform = yaml.safe_load_all(GOLDEN[0].read_text(encoding="utf-8"))
    container = pipeline["deploymentSpec"]["executors"]["Trainer_executor"]["container"]
    container["env"] = [{"name": "COMMIT", "value": value}]
    plain = yaml.safe_dump_all([pipeline, platform])
    assert f"value: {value}\n" in plain
    with pytest.raises(ConfigurationError, match=r"deployment spec: .* env field: .*value field"):
        check(plain)
    assert list(refusals(go_yaml.dump_all([pipeline, platform]))) == []


@pytest.mark.parametrize("text", ["[" * 5000, f"pipelineInfo: {'9' * 5000}"], ids=["nesting", "digits"])
def test_what_python_cannot_read_is_refused_in_words(text):
    assert list(refusals(text)) == ["not YAML (unreadable)"]


def test_two_pipelines_in_one_file_are_refused():
    pipeline, platform = yaml.safe_load_all(GOLDEN[0].read_text(encoding="utf-8"))
    with pytest.raises(ConfigurationError, match="multiple pipeline specs"):
        check(yaml.safe_dump_all([pipeline, pipeline]))
    with pytest.raises(ConfigurationError, match="multiple platform specs"):
        check(yaml.safe_dump_all([pipeline, platform, platform]))
