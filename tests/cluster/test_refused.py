"""Manifests with one mistake each: the real API server refuses them, and names the field."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.control_plane import Api, RefusedError
from tests.cluster.manifests import one_of

STABLE = ("cluster", "Deployment", "bike-serving-stable")
POD = "spec.template.spec"
SERVER = f"{POD}.containers.0"
SCALER = ("cluster", "HorizontalPodAutoscaler", "bike-serving-stable")
BUDGET = ("cluster", "PodDisruptionBudget", "bike-serving-stable")
NETWORK = ("cluster", "NetworkPolicy", "bike-serving")
ROUTE = ("cluster", "HTTPRoute", "bike-serving")
CALLS = ("cluster", "GRPCRoute", "bike-serving")
GATEWAY = ("cluster", "Gateway", "bike-serving")
MONITOR = ("cluster", "ServiceMonitor", "bike-serving")
RULES = ("cluster", "PrometheusRule", "bike-pipeline")
CLAIM = ("cluster", "PersistentVolumeClaim", "bike-pipeline")
SERVICE = ("cluster", "Service", "bike-serving-stable")
KSERVE = ("kserve.yaml", "InferenceService", "bike-demand")
TRAIN = ("trainjob.yaml", "TrainJob", "bike-demand")
CLOCK = ("watch-once.yaml", "CronJob", "bike-pipeline-watch")
OWNER = ("volume-owner.yaml", "Job", "bike-pipeline-volume-owner")
GONE = object()
# Which object, the path of the one change, the value there, and what the server has to say of it.
WRONG = {
    "field that is spelt wrong": (STABLE, f"{SERVER}.livenesProbe", {}, ".livenesProbe: field not declared"),
    "number as text": (STABLE, "spec.replicas", "two", ".spec.replicas"),
    "selector of other pods": (STABLE, "spec.selector.matchLabels", {"app": "x"}, "template.metadata.labels"),
    "no selector": (STABLE, "spec.selector", GONE, "spec.selector"),
    "neither surge nor fewer": (STABLE, "spec.strategy.rollingUpdate.maxSurge", 0, "rollingUpdate.maxUnavailable"),
    "strategy that is none": (STABLE, "spec.strategy.type", "Canary", "spec.strategy"),
    "image without name": (STABLE, f"{SERVER}.image", "", "containers[0].image"),
    "limit below request": (STABLE, f"{SERVER}.resources.limits.cpu", "100m", "resources.requests"),
    "quantity that is none": (STABLE, f"{SERVER}.resources.limits.memory", "1 GB", "quantit"),
    "probe of two kinds": (STABLE, f"{SERVER}.readinessProbe.tcpSocket", {"port": 8500}, "readinessProbe"),
    "probe that never succeeds": (STABLE, f"{SERVER}.livenessProbe.successThreshold", 2, "Probe.successThreshold"),
    "port out of range": (STABLE, f"{SERVER}.ports.0.containerPort", 85000, "ports[0].containerPort"),
    "volume that is not there": (STABLE, f"{SERVER}.volumeMounts.0.name", "models", "volumeMounts[0].name"),
    "path out of the volume": (STABLE, f"{SERVER}.volumeMounts.0.subPath", "../keys", "volumeMounts.subPath"),
    "privileged without escalation": (STABLE, f"{SERVER}.securityContext.privileged", True, "securityContext"),
    "profile that is none": (STABLE, f"{POD}.securityContext.seccompProfile.type", "Default", "seccompProfile.type"),
    "more at least than at most": (SCALER, "spec.minReplicas", 9, "spec.maxReplicas"),
    "metric without target": (SCALER, "spec.metrics.0.pods.target.averageValue", GONE, "pods.target.averageValue"),
    "budget of both kinds": (BUDGET, "spec.minAvailable", 1, "minAvailable and maxUnavailable"),
    "eviction policy that is none": (BUDGET, "spec.unhealthyPodEvictionPolicy", "Always", "unhealthyPodEvictionPolicy"),
    "protocol that is none": (NETWORK, "spec.ingress.0.ports.0.protocol", "GRPC", "ports[0].protocol"),
    "direction that is none": (NETWORK, "spec.policyTypes.0", "In", "policyTypes[0]"),
    "weight below nothing": (ROUTE, "spec.rules.0.backendRefs.0.weight", -1, "backendRefs[0].weight"),
    "backend without port": (ROUTE, "spec.rules.0.backendRefs.0.port", GONE, "port"),
    "match that is none": (ROUTE, "spec.rules.0.matches.0.path.type", "Prefix", "path.type"),
    "share instead of weight": (CALLS, "spec.rules.0.backendRefs.0.share", 10, "backendRefs[0].share"),
    "listener without protocol": (GATEWAY, "spec.listeners.0.protocol", GONE, "listeners[0].protocol"),
    "two listeners of a name": (GATEWAY, "spec.listeners.1.name", "rest", "spec.listeners"),
    "interval in words": (MONITOR, "spec.endpoints.0.interval", "15 seconds", "endpoints[0].interval"),
    "no selector of services": (MONITOR, "spec.selector", GONE, "spec.selector"),
    "rule without expression": (RULES, "spec.groups.0.rules.0.expr", GONE, "rules[0].expr"),
    "access that is none": (CLAIM, "spec.accessModes.0", "ReadWriteAll", "accessModes"),
    "no size": (CLAIM, "spec.resources.requests.storage", GONE, "spec.resources"),
    "port of no pod's name": (SERVICE, "spec.ports.0.targetPort", "a_port", "ports[0].targetPort"),
    "all but everything to the canary": (KSERVE, "spec.canary.0.trafficPercent", 101, "canary[0].trafficPercent"),
    "canary without share": (KSERVE, "spec.canary.0.trafficPercent", GONE, "canary[0].trafficPercent"),
    "share in the wrong place": (KSERVE, "spec.canary.0.canaryTrafficPercent", 10, "canary[0].canaryTrafficPercent"),
    "workers in words": (TRAIN, "spec.trainer.numNodes", "three", "spec.trainer.numNodes"),
    "runtime without name": (TRAIN, "spec.runtimeRef.name", GONE, "spec.runtimeRef.name"),
    "hour that is none": (CLOCK, "spec.schedule", "*/10 25 * * *", "spec.schedule"),
    "side by side or not": (CLOCK, "spec.concurrencyPolicy", "Never", "spec.concurrencyPolicy"),
    "job that starts for ever": (OWNER, f"{POD}.restartPolicy", "Always", "restartPolicy"),
}  # fmt: skip


def changed(manifest: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """Return a manifest with another value in one place."""
    *above, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place: Any = manifest
    for key in above:
        place = place[key]
    if value is GONE:
        del place[last]
    else:
        place[last] = value
    return manifest


@pytest.mark.parametrize(("which", "path", "value", "says"), WRONG.values(), ids=WRONG)
def test_one_mistake_is_refused_by_its_field(
    server: Api, which: tuple[str, str, str], path: str, value: object, says: str
) -> None:
    # Under another name: what is there already fills in what a change takes away.
    manifest = one_of(*which)
    manifest["metadata"]["name"] = "wrong"
    server.apply(manifest, dry_run=True)
    with pytest.raises(RefusedError) as refused:
        server.apply(changed(manifest, path, value), dry_run=True)
    assert says in str(refused.value)
