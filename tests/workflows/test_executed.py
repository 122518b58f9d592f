"""Every workflow is executed by act: what it does at the registry, in object storage and at Kubeflow's API."""

from __future__ import annotations

import json
import shutil

import boto3
import pytest
import yaml

from bike_pipeline.data.embedded_dataset import split_demo
from bike_pipeline.data.spans import SpanStore
from bike_pipeline.model_registry import ModelRegistry
from tests.rollout.making import push
from tests.workflows.conftest import AUDIENCE, FETCHED, GHCR, drift_message, git, uses

pytestmark = [pytest.mark.slow, FETCHED]
ARTIFACTS = "europe-west1-docker.pkg.dev/project/images/bike-pipeline"
GOOGLE = {
    "IMAGE_REPOSITORY": ARTIFACTS,
    "GOOGLE_PROVIDER": "projects/1/locations/global/workloadIdentityPools/github/providers/repository",
    "GOOGLE_SERVICE_ACCOUNT": "ci@project.iam.gserviceaccount.com",
}


def runs(cluster):
    """Return the runs that were started at the cluster: (name, images of the spec)."""
    found = []
    for run in cluster.runs.values():
        version = cluster.versions[run["pipeline_version_reference"]["pipeline_version_id"]]
        executors = version["pipeline_spec"]["documents"][0]["deploymentSpec"]["executors"].values()
        found.append((run["display_name"], {one["container"]["image"] for one in executors}))
    return found


def test_ci_runs_the_whole_check_on_each_python_and_the_quick_one_beside_it(checkout):
    checkout.whole_check("make lint")
    ran = checkout.act("pull_request", "ci.yml")
    assert ran.code == 0, ran.output
    assert (checkout.stand_in / "whole-check").read_text(encoding="utf-8") == "called for pull_request\n" * 4
    assert [call for call in checkout.calls if call != "make lint"] == ["make lint types imports test-fast"]


def test_ci_fails_where_lint_finds_something(checkout):
    (checkout.folder / "bike_pipeline" / "version.py").write_text("import os\n", encoding="utf-8")
    checkout.whole_check("make lint")
    assert checkout.act("push", "ci.yml").code != 0


@pytest.mark.parametrize(("repository", "more"), [(GHCR, {}), (ARTIFACTS, GOOGLE)], ids=["ghcr", "artifact-registry"])
def test_changed_code_becomes_a_new_version_and_runs(checkout, cluster, variables, repository, more):
    ran = checkout.act("push", "cd-pipeline.yml", variables=variables | more)
    assert ran.code == 0, ran.output
    commit = git(checkout.folder, "rev-parse", "HEAD")
    digest = checkout.registry[f"{repository}:{commit}"]
    assert checkout.registry == {f"{repository}:{commit}": digest, f"{repository}:deployed": digest}
    assert runs(cluster) == [(f"cd {commit}", {f"{repository}@{digest}"})]
    (run,) = cluster.runs
    assert f"address={cluster.address}/#/runs/details/{run}" in ran.output
    assert AUDIENCE in checkout.identities.audiences
    assert "of-this-job" not in ran.output
    assert f"identity-for-{AUDIENCE}" not in ran.output


def test_an_image_whose_run_fails_is_not_the_deployed_one(checkout, cluster, variables):
    before = checkout.deploy()
    cluster.states = [("RUNNING", {}, ""), ("FAILED", {"Trainer": "FAILED"}, "out of memory")]
    ran = checkout.act("push", "cd-pipeline.yml", variables=variables)
    assert ran.code != 0
    assert "the run failed in Trainer (out of memory)" in ran.output
    assert len(cluster.runs) == 1
    assert checkout.registry[f"{GHCR}:deployed"] == before.partition("@")[2]


def test_nothing_is_built_where_the_check_fails(checkout, cluster, variables):
    checkout.whole_check("false")
    assert checkout.act("push", "cd-pipeline.yml", variables=variables).code != 0
    assert not any(call.startswith("docker") for call in checkout.calls)


def test_an_environment_that_nobody_set_up_is_told(checkout):
    checkout.deploy()
    ran = checkout.act("repository_dispatch", "ct-drift.yml", payload=drift())
    assert ran.code != 0
    assert "KUBEFLOW_ENDPOINT does not say where Kubeflow Pipelines is" in ran.output


def test_changed_data_are_ingested_and_the_deployed_pipeline_runs_without_a_build(
    checkout, cluster, storage, tmp_path, capsys
):
    image = checkout.deploy()
    before = git(checkout.folder, "rev-parse", "HEAD")
    first, second = split_demo(tmp_path)
    incoming = checkout.folder / "data" / "incoming"
    incoming.mkdir(parents=True, exist_ok=True)
    shutil.copy(first, incoming / "2011 of ours.csv")
    shutil.copy(second, incoming / "2012.csv")
    (incoming / "notes.txt").write_text("not data", encoding="utf-8")
    commit = checkout.push("The two years")
    ran = checkout.act("push", "ct-data.yml", payload={"before": before}, variables=storage)
    assert ran.code == 0, ran.output
    assert "neither CSV nor Parquet: data/incoming/notes.txt" in ran.output
    assert SpanStore("s3://models/spans").spans() == [1, 2]
    assert runs(cluster) == [(f"ct-data {commit}", {image})]
    assert "s3://models/spans" in json.dumps(list(cluster.versions.values()))
    assert not any("docker build" in call for call in checkout.calls)
    assert "sts.amazonaws.com" in checkout.identities.audiences


def test_removed_data_start_no_run(checkout, cluster, storage):
    checkout.deploy()
    path = checkout.folder / "data" / "incoming" / "rides.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x", encoding="utf-8")
    before = checkout.push("One file")
    path.unlink()
    checkout.push("None")
    ran = checkout.act("push", "ct-data.yml", payload={"before": before}, variables=storage)
    assert ran.code == 0, ran.output
    assert cluster.runs == {}


def storage_event(**values):
    return {"client_payload": {"address": "s3://models/incoming/2011.csv", "version": "0061A2", **values}}


def test_a_file_in_object_storage_is_ingested_and_the_deployed_pipeline_runs(checkout, cluster, storage, tmp_path):
    image = checkout.deploy()
    first, _ = split_demo(tmp_path)
    boto3.client("s3").upload_file(str(first), "models", "incoming/2011.csv")
    variables = storage | {"INCOMING_ADDRESS": "s3://models/incoming"}
    ran = checkout.act("repository_dispatch", "ct-storage.yml", payload=storage_event(), variables=variables)
    assert ran.code == 0, ran.output
    assert SpanStore("s3://models/spans").spans() == [1]
    assert runs(cluster) == [("ct-storage 0061A2", {image})]


def test_a_file_from_elsewhere_is_refused_before_anything_is_asked(checkout, cluster, variables):
    checkout.deploy()
    variables = variables | {"INCOMING_ADDRESS": "s3://models/other"}
    ran = checkout.act("repository_dispatch", "ct-storage.yml", payload=storage_event(), variables=variables)
    assert ran.code != 0
    assert "the event is not what a storage-changed has to be" in ran.output
    assert checkout.calls == []
    assert cluster.calls == []


def drift():
    return {"client_payload": drift_message()}


def test_concept_drift_runs_the_deployed_pipeline_once(checkout, cluster, variables):
    image = checkout.deploy()
    payload = drift()
    # What a workflow would run if it put the event into its own text.
    payload["client_payload"]["commonAnnotations"]["summary"] = '"; touch /tmp/x; "$(touch /tmp/x)`touch /tmp/x`'
    ran = checkout.act("repository_dispatch", "ct-drift.yml", payload=payload, variables=variables)
    assert ran.code == 0, ran.output
    (alert,) = payload["client_payload"]["alerts"]
    once = [(f"ct-drift {alert['fingerprint']} {alert['startsAt']}", {image})]
    assert runs(cluster) == once
    # Alertmanager tells what still is so again and again.
    assert checkout.act("repository_dispatch", "ct-drift.yml", payload=payload, variables=variables).code == 0
    assert runs(cluster) == once


@pytest.fixture
def served(storage, tmp_path):
    """Two versions in object storage, the first of which serves."""
    push(tmp_path / "local" / "bike_demand", 1, 2)
    registry = ModelRegistry("s3://models/serving/bike_demand")
    for version in (1, 2):
        model = tmp_path / "local" / f"model-{version}"
        record = ModelRegistry(tmp_path / "local" / "bike_demand").push_record(version)
        registry.add(model, version, record)
        registry.set_validated(version, passed=True, reason="a test")
    registry.promote(1)
    return registry


def test_a_release_promotes_and_goes_back(checkout, storage, served):
    checkout.deploy()
    variables = storage | {"SERVING_BASE_PATH": "s3://models/serving"}
    for action, version, serving in (("promote", "2", 2), ("rollback", "", 1)):
        inputs = {"action": action, "version": version, "reason": f'"{action}" $(false) `false`'}
        ran = checkout.act("workflow_dispatch", "release.yml", payload={"inputs": inputs}, variables=variables)
        assert ran.code == 0, ran.output
        assert served.serving() == serving
        assert served.history()[-1].reason == inputs["reason"]


@pytest.mark.parametrize("version", ["1; false", "--help", "0"])
def test_a_release_of_no_version_is_refused(checkout, variables, version):
    checkout.deploy()
    inputs = {"action": "promote", "version": version, "reason": "why"}
    variables = variables | {"SERVING_BASE_PATH": "s3://models/serving"}
    ran = checkout.act("workflow_dispatch", "release.yml", payload={"inputs": inputs}, variables=variables)
    assert ran.code != 0
    assert f"no version: '{version}'" in ran.output
    assert not any(call.startswith("docker run") for call in checkout.calls)


OTHERS = """
name: ours
on: push
permissions: {{}}
jobs:
  run:
    runs-on: ubuntu-24.04
    steps:
      - uses: {checkout}
        with: {{persist-credentials: false}}
      - run: printf x | docker login --username us --password-stdin ghcr.io
      - id: kubeflow
        uses: Team/bike_pipeline/.github/actions/kubeflow-pipeline@{commit}
        with:
          image: {image}
          endpoint: {endpoint}
          audience: {audience}
          spec: pipeline.yaml
          settings: pipeline_name=ours
          {more}
      - env: {{VERSION: "${{{{ steps.kubeflow.outputs.version }}}}", RUN: "${{{{ steps.kubeflow.outputs.run }}}}"}}
        run: echo "outputs $VERSION $RUN"
"""


@pytest.mark.parametrize("more", ["run-name: nightly", 'cron: "0 0 3 * * *"'], ids=["run", "schedule"])
def test_another_team_runs_its_own_pipeline_by_the_action(checkout, cluster, variables, tmp_path, more):
    image, commit = checkout.deploy(), git(checkout.folder, "rev-parse", "HEAD")
    theirs = tmp_path / "theirs"
    (theirs / ".github" / "workflows").mkdir(parents=True)
    checked_out = next(name for name, _ in uses() if name.startswith("actions/checkout@"))
    spec = {
        "pipelineInfo": {"name": "ours"},
        "schemaVersion": "2.1.0",
        "components": {"comp": {"executorLabel": "e"}},
        "deploymentSpec": {"executors": {"e": {"container": {"image": "theirs", "command": ["true"]}}}},
        "root": {"dag": {"tasks": {"t": {"taskInfo": {"name": "t"}, "componentRef": {"name": "comp"}}}}},
    }
    (theirs / "pipeline.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    own = {"checkout": checked_out, "commit": commit, "image": image, "endpoint": cluster.address}
    text = OTHERS.format(**own, audience=AUDIENCE, more=more)
    (theirs / ".github" / "workflows" / "ours.yml").write_text(text, encoding="utf-8")
    git(theirs, "init", "--quiet", "--initial-branch", "main", ".")
    git(theirs, "add", "--all")
    git(theirs, "commit", "--quiet", "--message", "Ours")
    local = [f"Team/bike_pipeline@{commit}={checkout.folder}"]
    ran = checkout.act("push", "ours.yml", folder=theirs, local=local)
    assert ran.code == 0, ran.output
    (pipeline,) = cluster.pipelines.values()
    assert pipeline["display_name"] == "ours"
    made = [*cluster.runs, *cluster.recurring]
    assert len(made) == 1
    assert "outputs 0.1.0-" in ran.output
    assert made[0] in ran.output
