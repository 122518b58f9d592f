"""The second document of the spec: what only Kubernetes knows of (volumes, secrets, nodes, images)."""

from __future__ import annotations

from typing import Any, Final

from bike_pipeline.settings import Settings

# KFP labels each pod with the run's id; the entry point names the run in ML Metadata by it.
RUN_ID_VARIABLE: Final = "KFP_RUN_ID"
RUN_ID_FIELD: Final = "metadata.labels['pipeline/runid']"


def platform_document(settings: Settings, spec: dict[str, Any]) -> dict[str, Any]:
    """Return the platform document that belongs to a pipeline spec, keyed by the labels of its executors."""
    executors = {}
    for name, task in spec["root"]["dag"]["tasks"].items():
        label = spec["components"][task["componentRef"]["name"]]["executorLabel"]
        executors[label] = _executor(settings, name)
    return {"platforms": {"kubernetes": {"deploymentSpec": {"executors": executors}}}}


def _executor(settings: Settings, name: str) -> dict[str, Any]:
    from google.protobuf import json_format
    from kfp.kubernetes import kubernetes_executor_config_pb2 as pb

    kubeflow = settings.kubeflow
    stage = kubeflow.stage(name)
    config = pb.KubernetesExecutorConfig(image_pull_policy=kubeflow.image_pull_policy)
    config.field_path_as_env.add(name=RUN_ID_VARIABLE, field_path=RUN_ID_FIELD)
    for pull_secret in kubeflow.image_pull_secrets:
        config.image_pull_secret.add(
            secret_name=pull_secret
        ).secret_name_parameter.runtime_value.constant.string_value = pull_secret
    for volume in kubeflow.volumes:
        mount = config.pvc_mount.add(constant=volume.claim, mount_path=volume.mount_path, sub_path=volume.sub_path)
        mount.pvc_name_parameter.runtime_value.constant.string_value = volume.claim
    for secret in kubeflow.secrets:
        entry = config.secret_as_env.add(secret_name=secret.name)
        entry.secret_name_parameter.runtime_value.constant.string_value = secret.name
        for key, variable in sorted(secret.keys.items()):
            entry.key_to_env.add(secret_key=key, env_var=variable)
    for key, value in sorted((stage.node_selector or {}).items()):
        config.node_selector.labels[key] = value
    for toleration in stage.tolerations or ():
        config.tolerations.add(**toleration.model_dump())
    return dict(json_format.MessageToDict(config))
