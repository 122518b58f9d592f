"""The manifests in configs/kubernetes: core kinds by Kubernetes' own schemas, and what they have to agree with."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from bike_pipeline.commands.retrain import watch_command
from bike_pipeline.commands.serve import gateway_command, serve_command
from bike_pipeline.rollout.tracks import LABELS
from bike_pipeline.serving.server.access import check_exposure
from bike_pipeline.settings import load_settings
from bike_pipeline.settings.metadata import METADATA_PASSWORD, METADATA_USER
from bike_pipeline.storage import cluster_volumes

ROOT = Path(__file__).resolve().parent.parent
# `make test-cluster` asks a real API server about these, but for kustomize's own, Seldon's and Knative's.
CUSTOM_GROUPS = {
    "kustomize.config.k8s.io", "argoproj.io", "trainer.kubeflow.org", "gateway.networking.k8s.io", "serving.kserve.io",
    "monitoring.coreos.com", "flagger.app", "policies.kyverno.io", "machinelearning.seldon.io", "eventing.knative.dev",
}  # fmt: skip
OBJECTS = [
    (f"{path.name}:{number}", document)
    for path in sorted((ROOT / "configs" / "kubernetes").rglob("*.yaml"))
    for number, document in enumerate(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    if document and "metadata" in document
]
CORE = [(name, document) for name, document in OBJECTS if document["apiVersion"].split("/")[0] not in CUSTOM_GROUPS]


def validate(document):
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("document", [document for _, document in CORE], ids=[name for name, _ in CORE])
def test_core_kinds_are_what_kubernetes_defines(document):
    validate(document)


@pytest.mark.parametrize(
    "change",
    [{"spec": {"accessModes": "ReadWriteMany"}}, {"spec": {"size": "20Gi"}}, {"data": {}}],
    ids=["kind of value", "unknown field", "unknown top field"],
)
def test_what_kubernetes_does_not_define_is_refused(change):
    document = json.loads(json.dumps(CORE[0][1])) | change
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(document)


def test_the_claims_that_the_settings_mount_are_there():
    settings = yaml.safe_load((ROOT / "configs" / "base.yaml").read_text(encoding="utf-8"))["kubeflow"]
    claims = {one["metadata"]["name"] for _, one in OBJECTS if one["kind"] == "PersistentVolumeClaim"}
    assert {volume["claim"] for volume in settings["volumes"]} <= claims


def test_the_job_gives_the_volume_to_the_user_of_the_image():
    [job] = [one for _, one in OBJECTS if one["kind"] == "Job"]
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    # Root builds, and whoever is named last of all runs; every image that is made ends with the same user.
    images = re.split(r"^FROM ", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    last = [users[-1] for image in images if (users := re.findall(r"^USER (\S+)$", image, re.MULTILINE))]
    [user] = set(last)
    settings = yaml.safe_load((ROOT / "configs" / "base.yaml").read_text(encoding="utf-8"))["kubeflow"]
    [volume] = settings["volumes"]
    assert container["image"] == settings["image"]
    assert container["securityContext"]["runAsUser"] == 0
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == [volume["mount_path"]]
    assert [one["persistentVolumeClaim"]["claimName"] for one in pod["volumes"]] == [volume["claim"]]
    assert f"chown -R {user} {volume['mount_path']}" in container["command"][-1]
    assert cluster_volumes.OWNER_JOB == "configs/kubernetes/volume-owner.yaml"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder away")
def test_what_the_job_does_makes_a_root_owned_volume_writable(tmp_path):
    (tmp_path / "spans").mkdir(mode=0o755)
    [job] = [one for _, one in OBJECTS if one["kind"] == "Job"]
    *shell, text = job["spec"]["template"]["spec"]["containers"][0]["command"]
    subprocess.run([*shell, text.replace("/mnt/bike-pipeline", str(tmp_path))], check=True)
    for folder in (tmp_path, tmp_path / "spans"):
        found = folder.stat()
        assert (found.st_uid, found.st_gid) == (10001, 0)
        assert found.st_mode & 0o070 == 0o070


def test_the_watch_is_called_as_the_command_line_takes_it_with_a_ledger_that_replicas_share():
    watches = {one["kind"]: one["spec"] for _, one in OBJECTS if one["metadata"]["name"] == "bike-pipeline-watch"}
    pods = [watches["Deployment"]["template"]["spec"], watches["CronJob"]["jobTemplate"]["spec"]["template"]["spec"]]
    claims = {one["metadata"]["name"] for _, one in OBJECTS if one["kind"] == "PersistentVolumeClaim"}
    assert watches["Deployment"]["replicas"] == 2
    for pod in pods:
        [container] = pod["containers"]
        program, name, *arguments = container["command"]
        assert (program, name) == ("bike-pipeline", "watch")
        context = watch_command.make_context(name, list(arguments))
        assert context.params["once"] is (pod is pods[1])
        sets = [text for before, text in pairwise(arguments) if before == "--set"]
        settings = load_settings(assignments=tuple(sets))
        assert settings.metadata.mysql is not None
        mount = container["volumeMounts"][0]["mountPath"]
        assert settings.retraining_path.is_relative_to(mount)
        assert {volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"]} <= claims
        assert {one["name"] for one in container["env"]} == {METADATA_USER, METADATA_PASSWORD}


def test_kserve_calls_the_server_as_the_command_line_takes_it_with_a_label_each():
    [service] = [one for _, one in OBJECTS if one["kind"] == "InferenceService"]
    [canary] = service["spec"]["canary"]
    labels = []
    for predictor in (service["spec"]["predictor"], canary["predictor"]):
        [container] = predictor["containers"]
        program, name, *options = container["command"]
        assert (program, name) == ("bike-pipeline", "serve")
        assert serve_command.make_context(name, [*options, *container["args"]]) is not None
        sets = [text for before, text in pairwise(container["args"]) if before == "--set"]
        settings = load_settings(assignments=tuple(sets))
        # Where KServe mounts the folder of models that STORAGE_URI names.
        assert settings.serving_path == f"/mnt/models/{settings.serving.model_name}"
        check_exposure(settings.serving.server.model_copy(update={"host": "0.0.0.0"}), "")
        labels.append(settings.serving.server.label)
    assert labels == [service["spec"]["predictor"]["name"], canary["predictor"]["name"]] == ["stable", "canary"]


def test_the_gateway_is_called_as_the_command_line_takes_it_with_a_server_for_each_label():
    [deployment] = [
        one for _, one in OBJECTS if one["kind"] == "Deployment" and one["metadata"]["name"] == "bike-gateway"
    ]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    program, name, *options = container["command"]
    assert (program, name) == ("bike-pipeline", "gateway")
    context = gateway_command.make_context(name, [*options, *container["args"]])
    assert f"{context.params['port']}" == f"{container['ports'][0]['containerPort']}"
    servers = dict(one.split("=") for one in container["args"][1].split(","))
    assert servers == {label: f"bike-serving-{label}" for label in LABELS}


def test_systemd_takes_the_unit(tmp_path):
    text = (ROOT / "configs" / "systemd" / "bike-pipeline-watch.service").read_text(encoding="utf-8")
    [command] = re.findall(r"^ExecStart=(.+)$", text, re.MULTILINE)
    program, name, *arguments = shlex.split(command)
    assert (Path(program).name, name) == ("bike-pipeline", "watch")
    watch_command.make_context(name, arguments)
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not on this machine")
    unit = tmp_path / "bike-pipeline-watch.service"
    for change, wrong in (("", False), ("Restarts=always\n", True)):
        # The program and the user are not on this machine.
        here = text.replace(program, "/bin/true").replace("User=bike-pipeline", f"{change}User=root")
        unit.write_text(here, encoding="utf-8")
        done = subprocess.run([analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False)
        about = [line for line in done.stderr.splitlines() if unit.name in line]
        assert bool(about) is wrong, about
