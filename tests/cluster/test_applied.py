"""Every manifest is applied to a real API server, and real controllers make of it what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from bike_pipeline.rollout import configuration, manifests
from bike_pipeline.rollout.tracks import Track
from bike_pipeline.settings import load_settings
from tests.cluster.control_plane import NAMESPACE, Api, eventually
from tests.cluster.manifests import FOLDER, OVERLAYS, SINGLE, built, objects, one_of

SERVING = "app.kubernetes.io/component=serving"
# Their definitions are in no package registry: tests/test_seldon_manifest.py asks what is published of them.
UNDEFINED = {"SeldonDeployment", "Broker", "Trigger"}


@pytest.mark.parametrize("name", [*OVERLAYS, *SINGLE])
def test_the_api_server_takes_every_manifest_to_the_letter(server: Api, name: str) -> None:
    asked = [one for one in objects(name) if one["kind"] not in UNDEFINED]
    taken = [server.apply(one, dry_run=True) for one in asked]
    assert taken
    for one, answer in zip(asked, taken, strict=True):
        # An API of another server belongs to the cluster.
        if one["kind"] != "APIService":
            assert answer["metadata"]["namespace"] == one["metadata"].get("namespace", NAMESPACE)
        # A field that the server dropped would be one that nobody would miss.
        assert not _lost(one, answer), (one["kind"], _lost(one, answer))


def test_the_api_server_takes_the_pods_of_seldon_deployments_too(cluster: Api) -> None:
    pods = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"seldon-{predictor['name']}-{number}"}, **component}
        for one in objects("seldon.yaml")
        if one["kind"] == "SeldonDeployment"
        for predictor in one["spec"]["predictors"]
        for number, component in enumerate(predictor["componentSpecs"])
    ]
    assert len(pods) == 5
    for pod in pods:
        assert not _lost(pod, cluster.apply(pod, dry_run=True))


def test_the_tracks_of_a_rollout_are_taken_with_their_shares_and_copies(server: Api, tmp_path: Path) -> None:
    shares = {"stable": Track(1, 74.5), "canary": Track(2, 25.5), "shadow": Track(3, 10.0)}
    content = manifests.files(load_settings(), tmp_path, shares, FOLDER.parent)
    configuration.write(content, tmp_path)
    overlay = tmp_path.with_name(f"{tmp_path.name}-overlay")
    overlay.mkdir()
    kustomization = {"resources": [f"../{tmp_path.name}"], "components": [f"../{tmp_path.name}/operators"]}
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), encoding="utf-8")
    taken = [server.apply(one, dry_run=True) for one in yaml.safe_load_all(built(overlay))]
    names = {one["metadata"]["name"] for one in taken if one["kind"] == "Deployment"}
    assert {"bike-serving-stable", "bike-serving-canary", "bike-serving-shadow"} <= names
    [route] = [one for one in taken if one["kind"] == "HTTPRoute"]
    assert [one["weight"] for one in route["spec"]["rules"][0]["backendRefs"]] == [74500, 25500]


def _lost(wanted: object, answer: object, place: str = "") -> list[str]:
    """Return the places of values that are not in the answer; quantities may be written in another way."""
    if isinstance(wanted, dict):
        if not isinstance(answer, dict):
            return [place]
        return [at for key, value in wanted.items() for at in _lost(value, answer.get(key), f"{place}.{key}")]
    if isinstance(wanted, list):
        if not isinstance(answer, list) or len(answer) < len(wanted):
            return [place] * bool(wanted)
        return [at for number, value in enumerate(wanted) for at in _lost(value, answer[number], f"{place}[{number}]")]
    return [] if answer is not None else [place]


def test_what_the_cluster_overlay_deploys_becomes_available_on_the_nodes(applied: Api) -> None:
    deployments = [one for one in objects("cluster") if one["kind"] == "Deployment"]
    assert {one["metadata"]["name"] for one in deployments} == {
        "bike-pipeline-watch", "bike-pipeline-mlflow", "bike-serving-stable", "bike-tf-serving",
    }  # fmt: skip
    for one in deployments:
        name = one["metadata"]["name"]
        wanted = one["spec"].get("replicas", 1)
        # The autoscaler may have been there already.
        eventually(lambda name=name, wanted=wanted: _available(applied, name) >= wanted)
    pods = applied.pods(f"{SERVING},app=bike-serving-stable")
    assert pods
    assert all(one["spec"]["nodeName"].startswith("node-") for one in pods)
    claim = applied.get("v1", "PersistentVolumeClaim", "bike-pipeline")
    assert claim["status"]["phase"] == "Bound"


def _available(api: Api, name: str) -> int:
    status = api.get("apps/v1", "Deployment", name).get("status", {})
    return int(status.get("availableReplicas", 0))


def test_services_find_the_pods_of_their_track_and_the_budget_counts_them(applied: Api) -> None:
    def ready() -> set[str]:
        slices = applied(
            "GET",
            f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"
            "?labelSelector=kubernetes.io/service-name=bike-serving-stable",
        )["items"]
        return {
            one["targetRef"]["name"] for part in slices for one in part["endpoints"] or () if one["conditions"]["ready"]
        }

    pods = {one["metadata"]["name"] for one in applied.pods(f"{SERVING},app=bike-serving-stable")}
    assert eventually(ready) == pods
    budget = eventually(
        lambda: (
            applied.get("policy/v1", "PodDisruptionBudget", "bike-serving-stable").get("status", {}).get("expectedPods")
        )
    )
    assert budget == len(pods)


def test_the_autoscaler_keeps_two_pods_and_says_which_metric_it_lacks(applied: Api) -> None:
    # kube-controller-manager asks for metrics that nothing here serves, and goes to the smallest number all the same.
    scaler = one_of("cluster", "HorizontalPodAutoscaler", "bike-serving-stable")
    assert scaler["spec"]["scaleTargetRef"]["name"] == "bike-serving-stable"
    eventually(lambda: _available(applied, "bike-serving-stable") == scaler["spec"]["minReplicas"])

    def active() -> list[dict[str, str]]:
        status = applied.get("autoscaling/v2", "HorizontalPodAutoscaler", "bike-serving-stable").get("status", {})
        return [one for one in status.get("conditions") or () if one["type"] == "ScalingActive"]

    [condition] = eventually(active)
    assert condition["status"] == "False"
    assert "bike_requests_per_second" in condition["message"]


def test_a_new_version_of_the_image_replaces_pods_and_never_has_fewer(applied: Api) -> None:
    eventually(lambda: _available(applied, "bike-serving-stable") == 2)
    before = {one["metadata"]["name"] for one in applied.pods(f"{SERVING},app=bike-serving-stable")}
    deployment = one_of("cluster", "Deployment", "bike-serving-stable")
    deployment["spec"]["template"]["spec"]["containers"][0]["image"] = "bike-pipeline:0.1.1"
    applied.apply(deployment)
    least = 2

    def replaced() -> bool:
        nonlocal least
        least = min(least, _available(applied, "bike-serving-stable"))
        now = [one["metadata"]["name"] for one in applied.pods(f"{SERVING},app=bike-serving-stable")]
        return len(now) == 2 and not before & set(now)

    eventually(replaced)
    assert least == 2
