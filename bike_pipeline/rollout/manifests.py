"""What of the manifests for Kubernetes follows from the settings and from what is promoted: a folder for kustomize.

The rest is plain YAML in configs/kubernetes: `base` stands once in a namespace, `track` is a version that answers. The
folder puts them together: a track for each label that has a share of the requests, the images, TF Serving's files, and
beside them, in `operators`, what needs definitions of custom resources (routes by share, rules for Prometheus).
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bike_pipeline.model_registry.deployment import STABLE
from bike_pipeline.rollout import configuration
from bike_pipeline.rollout.tracks import SHADOW, Track

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings

_HEADER = "# Written by `bike-pipeline manifests`; a change belongs into the settings, or into an overlay.\n"
_CONFIG = "kustomize.config.k8s.io"
# Where a pod of `track` sees the claim, and the public keys of models.
_WORKSPACE, _KEY = "/mnt/bike-pipeline/workspace", "/etc/bike-pipeline/keys/signing.pub"
_LABELS = {"app.kubernetes.io/name": "bike-pipeline", "app.kubernetes.io/component": "serving"}


def files(
    settings: Settings,
    folder: Path,
    tracks: Mapping[str, Track],
    configs: Path,
    served: configuration.ServedVersions | None = None,
) -> dict[str, str]:
    """Return the content of every file of `folder` by its name.

    Args:
        settings: images, ports, the model's name, and what `serving.configuration` says of TF Serving.
        folder: where they go; kustomize reads other folders relative to it.
        tracks: which versions answer, by label; empty where nothing was pushed yet.
        configs: the folder with `kubernetes` and `monitoring`.
        served: what is promoted, for TF Serving's policy `promoted`.
    """
    manifests = configs / "kubernetes"
    tf_serving = {
        name: text
        for name, text in configuration.files(settings, folder, served).items()
        if name.endswith(".config") and name != configuration.LOGGING_FILE
    }
    shares = {label: track.share for label, track in tracks.items()} or {STABLE: 100.0}
    content: dict[str, Any] = {"kustomization.yaml": _all(settings, folder, list(shares), manifests, tf_serving)}
    for label in shares:
        content[f"{label}/kustomization.yaml"] = _track(settings, folder / label, label, manifests)
    content["operators/kustomization.yaml"] = {
        "apiVersion": f"{_CONFIG}/v1alpha1",
        "kind": "Component",
        "resources": ["routes.yaml", "rules.yaml"],
    }
    content["operators/routes.yaml"] = [_route(settings, kind, shares) for kind in ("HTTPRoute", "GRPCRoute")]
    content["operators/rules.yaml"] = _rules(configs / "monitoring" / "rules")
    return {**{name: _text(value) for name, value in content.items()}, **tf_serving}


def _text(content: Any) -> str:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes a text of several lines, such as a patch, as it is read."""

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, text)
    documents = content if isinstance(content, list) else [content]
    return _HEADER + yaml.dump_all(documents, Dumper=Dumper, sort_keys=False, width=120)


def _all(
    settings: Settings, folder: Path, labels: list[str], manifests: Path, tf_serving: Mapping[str, str]
) -> dict[str, Any]:
    container = settings.serving.configuration.container
    images = [
        _image("bike-pipeline", settings.kubeflow.image),
        _image("tensorflow/serving", container.image),
    ]
    return {
        "apiVersion": f"{_CONFIG}/v1beta1",
        "kind": "Kustomization",
        "resources": [_relative(manifests / "base", folder), *labels],
        "images": images,
        # Its name gets a hash of the files, so that a change of them is a rollout.
        "configMapGenerator": [{"name": "tf-serving", "files": sorted(tf_serving)}],
        "patches": [
            _patch("bike-tf-serving", "args", configuration.arguments(settings)),
        ],
    }


def _image(name: str, image: str) -> dict[str, str]:
    # A registry's port is no tag.
    path, _, last = image.rpartition("/")
    base, colon, tag = last.partition("@" if "@" in last else ":")
    new = f"{path}/{base}" if path else base
    return {"name": name, "newName": new, "digest" if colon and "@" in last else "newTag": tag or "latest"}


def _patch(deployment: str, field: str, value: Any) -> dict[str, Any]:
    import yaml

    operation = {"op": "replace", "path": f"/spec/template/spec/containers/0/{field}", "value": value}
    return {"target": {"kind": "Deployment", "name": deployment}, "patch": yaml.safe_dump([operation], width=1000)}


def _track(settings: Settings, folder: Path, label: str, manifests: Path) -> dict[str, Any]:
    sets = [
        # Only what it writes for itself; pods share no log file.
        "workspace=/tmp/workspace",
        f"serving.base_path={_WORKSPACE}/serving",
        f"monitoring.request_log.path={_WORKSPACE}/monitoring/requests",
        f"signing.trusted_keys=[{_KEY}]",
        f"serving.model_name={settings.serving.model_name}",
        # The network policy of `base` lets nobody but a gateway and the monitoring reach it.
        "serving.server.trusted_network=true",
        # Its version follows the promotion log.
        f"serving.server.label={label}",
    ]
    return {
        "apiVersion": f"{_CONFIG}/v1beta1",
        "kind": "Kustomization",
        "resources": [_relative(manifests / "track", folder)],
        "nameSuffix": f"-{label}",
        # Flagger tells the pods of a Deployment by this label first; the others belong to more than one.
        "labels": [{"pairs": {"app": f"bike-serving-{label}"}, "includeSelectors": True}],
        "patches": [_patch("bike-serving", "args", [part for text in sets for part in ("--set", text)])],
    }


def _relative(path: Path, folder: Path) -> str:
    return os.path.relpath(path.resolve(), folder.resolve())


def _route(settings: Settings, kind: str, shares: Mapping[str, float]) -> dict[str, Any]:
    ports = settings.serving.configuration.container
    port = ports.rest_port if kind == "HTTPRoute" else ports.grpc_port
    # A weight is a whole number; a percent of a copy, too, which rounds a small one up.
    scale = 1 if all(share % 1 == 0 for share in shares.values()) else 1000
    backends = [
        {"name": f"bike-serving-{label}", "port": port, "weight": round(share * scale)}
        for label, share in shares.items()
        if label != SHADOW
    ]
    rule: dict[str, Any] = {"backendRefs": backends}
    if SHADOW in shares:
        copied = {
            "backendRef": {"name": f"bike-serving-{SHADOW}", "port": port},
            "percent": math.ceil(shares[SHADOW]),
        }
        rule["filters"] = [{"type": "RequestMirror", "requestMirror": copied}]
    if kind == "HTTPRoute":
        # What anybody may ask; metrics are the monitoring's.
        rule["matches"] = [{"path": {"type": "PathPrefix", "value": f"/v1/models/{settings.serving.model_name}"}}]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": "bike-serving", "labels": dict(_LABELS)},
        "spec": {
            "parentRefs": [{"name": "bike-serving", "sectionName": "rest" if kind == "HTTPRoute" else "grpc"}],
            "rules": [rule],
        },
    }


def _rules(folder: Path) -> dict[str, Any]:
    import yaml

    groups = [
        group
        for path in sorted(folder.glob("*.yml"))
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    ]
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "bike-pipeline", "labels": {"app.kubernetes.io/name": "bike-pipeline"}},
        "spec": {"groups": groups},
    }
