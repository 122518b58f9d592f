"""A multi-worker training for Kubeflow Trainer: a TrainJob and the runtime that it refers to.

Kubeflow Trainer 2 has no runtime for TensorFlow (kubeflow/trainer#2443), so the runtime is one of ours: no framework's
policy, as many pods as the job has nodes, and in each the two names from which its workers know each other's hosts
(see `bike_pipeline.modeling.cluster`). It is a TrainingRuntime, of one namespace: no right over the cluster is needed.
Both documents hold for Kubeflow Trainer 2.0 to 2.3: the fields by which a job alters its runtime's pods were renamed in
2.2, so the runtime alone says what pods are like.
"""

from __future__ import annotations

import posixpath
from typing import Any, Final

from bike_pipeline.errors import ConfigurationError
from bike_pipeline.modeling import cluster
from bike_pipeline.modeling.train_worker import PORT, TrainingJob
from bike_pipeline.runners.kubeflow import go_yaml
from bike_pipeline.settings import Settings
from bike_pipeline.stages import Stage

API_VERSION: Final = "trainer.kubeflow.org/v1alpha1"
RUNTIME: Final = "bike-pipeline-tensorflow"
# Kubeflow Trainer finds what a TrainJob speaks of by this label, this job's name and this container's name.
_ANCESTOR: Final = {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
_NODE: Final = "node"
# JobSet's labels on its pods.
_LABELS: Final = {
    cluster.JOBSET_NAME: "jobset.sigs.k8s.io/jobset-name",
    cluster.REPLICATED_JOB_NAME: "jobset.sigs.k8s.io/replicatedjob-name",
}


def train_job(settings: Settings, job: TrainingJob, name: str, runtime: str = RUNTIME) -> str:
    """Return the manifest: a TrainingRuntime and a TrainJob on it, as YAML."""
    if job.training.strategy != "multi_worker":
        raise ConfigurationError(
            "a TrainJob trains with several workers", where="training.strategy", fix="set it to multi_worker"
        )
    # Host names are made of it, with the index behind; 63 characters are the limit for each of their parts.
    if not (name.replace("-", "").isalnum() and name.isascii() and name.islower() and name[0].isalpha()) or (
        len(name) > 50 or name.endswith("-")
    ):
        raise ConfigurationError(
            f"'{name}' names no TrainJob", where="name", fix="use up to 50 of a-z, 0-9 and -, with a letter first"
        )
    shared = tuple(f"{volume.mount_path}/" for volume in settings.kubeflow.volumes)
    for place in filter(None, (*job.examples, job.transform_graph, job.run_dir, job.model_dir, job.base_model)):
        _below(place, shared, "no mount_path of kubeflow.volumes, so the pods do not share it")
    # The schema may also be the one in the image.
    in_image = f"{settings.kubeflow.project_folder}/"
    _below(
        job.schema_file, (*shared, in_image), "neither a mount_path of kubeflow.volumes nor the project in the image"
    )
    documents = [_runtime(settings, runtime, job.training.workers), _job(settings, job, name, runtime)]
    return go_yaml.dump_all(documents, sort_keys=False)


def _below(place: str, folders: tuple[str, ...], wrong: str) -> None:
    if not posixpath.normpath(place).startswith(folders):
        raise ConfigurationError(
            f"it is below {wrong}",
            where=place,
            fix="use folders of a volume that all pods mount (artifacts are on it with kubeflow.artifact_folder)",
        )


def _object(kind: str, name: str, spec: dict[str, Any], **labels: str) -> dict[str, Any]:
    metadata = {"name": name, "labels": {"app.kubernetes.io/name": "bike-pipeline", **labels}}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


def _job(settings: Settings, job: TrainingJob, name: str, runtime: str) -> dict[str, Any]:
    stage = settings.kubeflow.stage(Stage.TRAINER)
    amounts = {"cpu": stage.cpu, "memory": stage.memory}
    if stage.accelerator is not None:
        amounts[stage.accelerator.type] = str(stage.accelerator.count)
    limits = {resource: amount for resource, amount in amounts.items() if amount}
    trainer: dict[str, Any] = {
        "numNodes": job.training.workers,
        "args": ["--nodes", str(job.training.workers), "--job", job.model_dump_json()],
    }
    if limits:
        trainer["resourcesPerNode"] = {"requests": limits, "limits": dict(limits)}
    reference = {"apiGroup": API_VERSION.partition("/")[0], "kind": "TrainingRuntime", "name": runtime}
    return _object("TrainJob", name, {"runtimeRef": reference, "trainer": trainer})


def _runtime(settings: Settings, name: str, workers: int) -> dict[str, Any]:
    kubeflow, stage = settings.kubeflow, settings.kubeflow.stage(Stage.TRAINER)
    pod: dict[str, Any] = {"restartPolicy": "Never", "containers": [_container(settings)]}
    if kubeflow.service_account:
        pod["serviceAccountName"] = kubeflow.service_account
    if kubeflow.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": secret} for secret in kubeflow.image_pull_secrets]
    if stage.node_selector:
        pod["nodeSelector"] = dict(stage.node_selector)
    if stage.tolerations:
        pod["tolerations"] = [toleration.model_dump(exclude_defaults=True) for toleration in stage.tolerations]
    if kubeflow.volumes:
        pod["volumes"] = [
            {"name": f"volume-{index}", "persistentVolumeClaim": {"claimName": volume.claim}}
            for index, volume in enumerate(kubeflow.volumes)
        ]
    replicated = {
        "name": _NODE,
        "replicas": 1,
        "template": {
            "metadata": {"labels": dict(_ANCESTOR)},
            # A worker that comes back alone finds no training to join: the whole set is started again.
            "spec": {"backoffLimit": 0, "completionMode": "Indexed", "template": {"spec": pod}},
        },
    }
    job_set = {
        # Workers look each other up before they are ready.
        "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
        "failurePolicy": {"maxRestarts": stage.retries or 0},
        "replicatedJobs": [replicated],
    }
    spec = {"mlPolicy": {"numNodes": workers}, "template": {"spec": job_set}}
    return _object("TrainingRuntime", name, spec, **{"trainer.kubeflow.org/framework": "tensorflow"})


def _container(settings: Settings) -> dict[str, Any]:
    kubeflow = settings.kubeflow
    variables: list[dict[str, Any]] = [
        {"name": variable, "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{label}']"}}}
        for variable, label in _LABELS.items()
    ]
    variables += [{"name": key, "value": value} for key, value in sorted(kubeflow.environment.items())]
    variables += [
        {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret.name, "key": key}}}
        for secret in kubeflow.secrets
        for key, variable in sorted(secret.keys.items())
    ]
    container: dict[str, Any] = {
        "name": _NODE,
        "image": kubeflow.image,
        "imagePullPolicy": kubeflow.image_pull_policy,
        "command": ["python", "-m", "bike_pipeline.modeling.train_worker"],
        "env": variables,
        "ports": [{"name": "train", "containerPort": PORT}],
    }
    if kubeflow.volumes:
        container["volumeMounts"] = [
            {"name": f"volume-{index}", "mountPath": volume.mount_path}
            | ({"subPath": volume.sub_path} if volume.sub_path else {})
            for index, volume in enumerate(kubeflow.volumes)
        ]
    return container
