"""The manifest for Kubeflow Trainer, held against the definitions that it ships."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

from bike_pipeline.commands.cluster import trainjob_command as command
from bike_pipeline.errors import ConfigurationError
from bike_pipeline.modeling import cluster, train_worker
from bike_pipeline.modeling.train_worker import TrainingJob
from bike_pipeline.runners.kubeflow.trainjob import train_job
from bike_pipeline.settings import PROJECT_ROOT, load_settings

DEFINITIONS = json.loads(
    (Path(__file__).resolve().parent / "definitions" / "kubeflow-trainer-2.3.0.json").read_text(encoding="utf-8")
)
EXAMPLE = PROJECT_ROOT / "configs" / "kubernetes" / "trainjob.yaml"
VOLUME = "/mnt/bike-pipeline"
PLACES = {
    "examples": (f"{VOLUME}/examples/Split-train/*",),
    "schema_file": "/opt/bike-pipeline/configs/schema.pbtxt",
    "transform_graph": f"{VOLUME}/transform",
    "run_dir": f"{VOLUME}/model.run",
    "model_dir": f"{VOLUME}/model",
}


def settings_of(*assignments):
    return load_settings(None, ("training.strategy=multi_worker", "training.workers=3", *assignments))


def manifest(settings, name="bikes", **places):
    places = PLACES | {"schema_file": f"{settings.kubeflow.project_folder}/configs/schema.pbtxt"} | places
    job = TrainingJob(**places, training=settings.training, seed=settings.seed)
    return list(yaml.safe_load_all(train_job(settings, job, name)))


def check(document):
    jsonschema.Draft202012Validator(DEFINITIONS[document["kind"]]).validate(document)


RICH = (
    "kubeflow.service_account=trainer",
    "kubeflow.image_pull_secrets=[registry]",
    "kubeflow.environment={TZ: UTC}",
    "kubeflow.secrets=[{name: bucket, keys: {key: BUCKET_KEY}}]",
    (
        "kubeflow.resources={Trainer: {cpu: '2', memory: 4Gi, accelerator: {type: nvidia.com/gpu, count: 2}, "
        "retries: 3, node_selector: {pool: gpu}, tolerations: [{key: gpu, operator: Exists, effect: NoSchedule}]}}"
    ),
)


@pytest.mark.parametrize(
    "assignments", [(), RICH, ("kubeflow.volumes=[{claim: bikes, mount_path: /mnt/bike-pipeline, sub_path: a}]",)]
)
def test_kubeflow_trainers_own_definitions_take_the_manifest(assignments):
    documents = manifest(settings_of(*assignments))
    assert [document["kind"] for document in documents] == ["TrainingRuntime", "TrainJob"]
    for document in documents:
        check(document)


def test_the_definitions_refuse_what_they_do_not_know():
    for document in manifest(settings_of(*RICH)):
        spoiled = copy.deepcopy(document)
        spoiled["spec"]["nodes"] = 3
        with pytest.raises(jsonschema.ValidationError, match="'nodes' was unexpected"):
            check(spoiled)
    runtime = manifest(settings_of())[0]
    pod = runtime["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    pod["containers"][0]["enviroment"] = []
    with pytest.raises(jsonschema.ValidationError, match="'enviroment' was unexpected"):
        check(runtime)


def test_the_settings_arrive_in_the_pods():
    runtime, job = manifest(settings_of(*RICH))
    job_set = runtime["spec"]["template"]["spec"]
    assert job_set["failurePolicy"] == {"maxRestarts": 3}
    pod = job_set["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "trainer"
    assert pod["nodeSelector"] == {"pool": "gpu"}
    assert pod["tolerations"] == [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]
    (container,) = pod["containers"]
    variables = {entry["name"]: entry for entry in container["env"]}
    assert variables["TZ"]["value"] == "UTC"
    assert variables["BUCKET_KEY"]["valueFrom"] == {"secretKeyRef": {"name": "bucket", "key": "key"}}
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {VOLUME}
    limits = {"cpu": "2", "memory": "4Gi", "nvidia.com/gpu": "2"}
    assert job["spec"]["trainer"]["resourcesPerNode"] == {"requests": limits, "limits": limits}
    assert job["spec"]["runtimeRef"]["name"] == runtime["metadata"]["name"]


def test_what_kubeflow_trainer_looks_for_is_there():
    # Its webhook refuses a runtime otherwise: one replica of a job with this label, and in it a container `node`.
    runtime, job = manifest(settings_of())
    (replicated,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    assert replicated["replicas"] == 1
    assert replicated["template"]["metadata"]["labels"]["trainer.kubeflow.org/trainjob-ancestor-step"] == "trainer"
    assert replicated["template"]["spec"]["template"]["spec"]["containers"][0]["name"] == "node"
    # A framework's policy would set that framework's variables; without one it only counts the nodes.
    assert set(runtime["spec"]["mlPolicy"]) == {"numNodes"}
    assert job["spec"]["trainer"]["numNodes"] == 3


def test_the_pods_make_one_cluster_of_what_the_manifest_gives_them(monkeypatch):
    runtime, job = manifest(settings_of())
    replicated = runtime["spec"]["template"]["spec"]["replicatedJobs"][0]
    (container,) = replicated["template"]["spec"]["template"]["spec"]["containers"]
    fields = {e["name"]: e["valueFrom"]["fieldRef"]["fieldPath"] for e in container["env"] if "valueFrom" in e}
    labels = {
        "metadata.labels['jobset.sigs.k8s.io/jobset-name']": job["metadata"]["name"],
        "metadata.labels['jobset.sigs.k8s.io/replicatedjob-name']": replicated["name"],
    }
    monkeypatch.delenv(cluster.TF_CONFIG, raising=False)
    seen = []
    monkeypatch.setattr(train_worker, "_work", lambda job, member: seen.append((job, member)))

    class EndedError(Exception):
        pass

    def end(error=None):
        raise EndedError(error)

    monkeypatch.setattr(train_worker, "_end", end)
    for name, field in fields.items():
        monkeypatch.setenv(name, labels[field])
    for index in range(3):
        monkeypatch.setenv(cluster.COMPLETION_INDEX, str(index))
        with pytest.raises(EndedError, match="None"):
            train_worker.main(job["spec"]["trainer"]["args"])
    assert container["command"] == ["python", "-m", "bike_pipeline.modeling.train_worker"]
    assert [member.index for _, member in seen] == [0, 1, 2]
    assert {member.workers for _, member in seen} == {tuple(f"bikes-node-0-{i}.bikes:2222" for i in range(3))}
    assert seen[0][0].model_dir == f"{VOLUME}/model"
    assert container["ports"][0]["containerPort"] == 2222


@pytest.mark.parametrize("name", ["Bikes", "bikes_2", "-bikes", "bikes-", "2bikes", "b" * 51, ""])
def test_a_name_that_makes_no_host_name_is_refused(name):
    with pytest.raises(ConfigurationError, match="names no TrainJob"):
        manifest(settings_of(), name)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("examples", ("gs://bucket/examples/*",)),
        ("model_dir", "/tmp/model"),
        ("run_dir", f"{VOLUME}/../run"),
        ("schema_file", "/etc/schema.pbtxt"),
        ("transform_graph", f"{VOLUME}2/transform"),
    ],
)
def test_a_place_that_the_pods_do_not_share_is_refused(place, value):
    with pytest.raises(ConfigurationError, match="it is below n"):
        manifest(settings_of(), **{place: value})


def test_another_strategy_is_refused():
    with pytest.raises(ConfigurationError, match="trains with several workers"):
        manifest(load_settings())


def test_the_example_is_what_the_command_writes(tmp_path):
    first, *_ = EXAMPLE.read_text(encoding="utf-8").splitlines()
    arguments = [
        "bike-demand",
        *("--set", "training.strategy=multi_worker", "--set", "training.workers=3"),
        *("--examples", f"{VOLUME}/artifacts/CsvExampleGen/examples/7/Split-history/*"),
        *("--examples", f"{VOLUME}/artifacts/CsvExampleGen/examples/7/Split-train/*"),
        *("--evaluated", f"{VOLUME}/artifacts/CsvExampleGen/examples/7/Split-eval/*"),
        *("--transform-graph", f"{VOLUME}/artifacts/Transform/transform_graph/12"),
        *("--model", f"{VOLUME}/trained/bike-demand"),
        *("--output", str(tmp_path / "trainjob.yaml")),
    ]
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 0, done.output
    assert first.startswith("#")
    written = list(yaml.safe_load_all((tmp_path / "trainjob.yaml").read_text(encoding="utf-8")))
    assert list(yaml.safe_load_all(EXAMPLE.read_text(encoding="utf-8"))) == written
    for document in written:
        check(document)
