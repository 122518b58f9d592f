"""Flagger drives a canary by what the real Prometheus says of it: promoted where it is fine, taken back where it fails.

No container runs, so the servers' metrics are those of a small exporter, under the names that the servers use.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.cluster.control_plane import Api, eventually, program, running
from tests.cluster.manifests import objects
from tests.cluster.scraping import pages, scraping
from tests.database_servers import free_port

FINE, FAILING = "fine", "failing"
DEPLOYMENT = "bike-serving-stable"
# Requests a second, and how many of these fail.
RATE, ERRORS = 100.0, {FINE: 0.0, FAILING: 0.2}
SECONDS = 150


def page(namespace: str, began: float) -> str:
    """Return what a server with so many failing requests tells, by the path that its namespace is."""
    requests = RATE * (time.monotonic() - began)
    share = ERRORS[namespace.strip("/")]
    name, model = ":tensorflow:serving:request", 'model_name="bike_demand"'
    return (
        f'{name}_count{{{model},status="OK"}} {requests * (1 - share)}\n'
        + f'{name}_count{{{model},status="INTERNAL"}} {requests * share}\n' * bool(share)
        # Microseconds: all within 18 ms.
        + "".join(f'{name}_latency_bucket{{{model},le="{le}"}} {requests}\n' for le in ("18000", "+Inf"))
    )


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that scrapes a pod of each namespace."""
    program("flagger")
    began = time.monotonic()
    with pages(lambda path: page(path, began)) as address:
        jobs = []
        for namespace in ERRORS:
            labels = {"namespace": namespace, "pod": f"{DEPLOYMENT}-7d4b9c-x2x5z"}
            static = {"targets": [address], "labels": labels}
            jobs.append({"job_name": namespace, "metrics_path": f"/{namespace}", "static_configs": [static]})
        with scraping(tmp_path_factory.mktemp("prometheus"), *jobs) as url:
            yield url


@pytest.fixture(scope="module")
def deployed(cluster: Api, prometheus: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """The overlay for Flagger in two namespaces, and Flagger, which has made the pods that answer of it."""
    for namespace in ERRORS:
        manifests = objects("flagger")
        for one in manifests:
            if one["kind"] == "MetricTemplate":
                one["spec"]["provider"]["address"] = prometheus
            if one["kind"] == "Canary":
                # The shortest that Flagger takes.
                one["spec"]["analysis"].update(interval="10s", stepWeight=25, threshold=2)
                for metric in one["spec"]["analysis"]["metrics"]:
                    metric["interval"] = "10s"
        cluster.deploy(namespace, manifests)
    folder = tmp_path_factory.mktemp("flagger")
    config = cluster.kubeconfig(folder / "kubeconfig")
    with running(
        folder,
        program("flagger"),
        f"-kubeconfig={config}",
        "-mesh-provider=gatewayapi:v1",
        f"-metrics-server={prometheus}",
        f"-port={free_port()}",
        "-log-level=info",
    ):
        for namespace in ERRORS:
            eventually(lambda namespace=namespace: phase(cluster, namespace) == "Initialized", SECONDS)
        yield cluster


def phase(api: Api, namespace: str) -> str:
    return str(api.get("flagger.app/v1beta1", "Canary", "bike-serving", namespace).get("status", {}).get("phase", ""))


def weights(api: Api, namespace: str) -> tuple[int, int]:
    """Return the shares of the pods that answered before and of the canary."""
    route = api.get("gateway.networking.k8s.io/v1", "HTTPRoute", "bike-serving", namespace)
    backends = {one["name"]: one["weight"] for one in route["spec"]["rules"][0]["backendRefs"]}
    return backends["bike-serving-primary"], backends["bike-serving-canary"]


def image(api: Api, namespace: str) -> str:
    deployment = api.get("apps/v1", "Deployment", f"{DEPLOYMENT}-primary", namespace)
    return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"])


def test_before_a_change_everything_goes_to_the_pods_that_were_promoted(deployed: Api) -> None:
    for namespace in ERRORS:
        assert weights(deployed, namespace) == (100, 0)
        assert image(deployed, namespace) == "bike-pipeline:0.1.0"
        # Flagger's own types may be older than the server's, and what they do not know is lost in its copy.
        [copy], [ours] = (
            deployed.get("apps/v1", "Deployment", name, namespace)["spec"]["template"]["spec"]["containers"]
            for name in (f"{DEPLOYMENT}-primary", DEPLOYMENT)
        )
        assert copy == ours
        # What selects pods by a label that other Deployments have, too, would send requests to the watch loop.
        service = deployed.get("v1", "Service", "bike-serving-primary", namespace)
        assert service["spec"]["selector"] == {"app": f"{DEPLOYMENT}-primary"}
        assert {8500, 8501} <= {one["port"] for one in service["spec"]["ports"]}


def test_a_canary_is_promoted_where_its_metrics_are_fine_and_taken_back_where_requests_fail(deployed: Api) -> None:
    for namespace in ERRORS:
        changed = next(
            one for one in objects("flagger") if (one["kind"], one["metadata"]["name"]) == ("Deployment", DEPLOYMENT)
        )
        changed["metadata"]["namespace"] = namespace
        changed["spec"]["template"]["spec"]["containers"][0]["image"] = "bike-pipeline:0.1.1"
        deployed.apply(changed)
    seen: dict[str, set[tuple[int, int]]] = {namespace: set() for namespace in ERRORS}

    def ended() -> bool:
        for namespace, shares in seen.items():
            shares.add(weights(deployed, namespace))
        return all(phase(deployed, namespace) in ("Succeeded", "Failed") for namespace in seen)

    eventually(ended, SECONDS)
    assert {namespace: phase(deployed, namespace) for namespace in ERRORS} == {FINE: "Succeeded", FAILING: "Failed"}
    assert {(75, 25), (50, 50)} <= seen[FINE]
    assert (50, 50) not in seen[FAILING]
    assert {namespace: image(deployed, namespace) for namespace in ERRORS} == {
        FINE: "bike-pipeline:0.1.1",
        FAILING: "bike-pipeline:0.1.0",
    }
    for namespace in ERRORS:
        assert weights(deployed, namespace) == (100, 0)
