"""The autoscaler scales by what servers count: through the real Prometheus, prometheus-adapter and the aggregated API.

No container runs, so each pod's page is written here, by the embedded server's own code. The windows of the rate
and of the autoscaler are an eighth of what is shipped, so that a test takes seconds.
"""

from __future__ import annotations

import itertools
import json
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from bike_pipeline.serving.server.metrics import Metrics
from tests.cluster.control_plane import MONITORING, Api, RefusedError, cluster_tools, eventually, program, running
from tests.cluster.manifests import objects, one_of
from tests.cluster.scraping import pages, scraping
from tests.database_servers import free_port

NAMESPACE, SCALER = "scaled", "bike-serving-stable"
SECONDS = 150


class Load:
    """What the pods are asked, and what they need for it.

    Attributes:
        requests: a second, of all pods together; None where no page of theirs can be had.
        cores: that each pod uses.
    """

    def __init__(self) -> None:
        self.requests: float | None = 0.0
        self.cores = 0.1
        self._pages: dict[str, Metrics] = defaultdict(Metrics)
        self._asked: dict[str, float] = {}
        self._used: dict[str, float] = defaultdict(float)

    def page(self, pod: str) -> str:
        """Return what a pod's server tells that got its share of the requests since it was last asked."""
        now = time.monotonic()
        since = now - self._asked.get(pod, now)
        self._asked[pod] = now
        pods = sum(now - asked < 5 for asked in self._asked.values())
        self._used[pod] += self.cores * since
        if self.requests is None:
            return ""
        if self.requests:
            # There is no count before there is a request.
            self._pages[pod].request_count.add(("bike_demand", "OK"), round(self.requests * since / pods))
        return self._pages[pod].text().decode()

    def cadvisor(self) -> str:
        """Return what a kubelet tells of the pods that were asked."""
        lines = []
        for pod in self._asked:
            labels = f'namespace="{NAMESPACE}",pod="{pod}",container="serve"'
            lines.append(f"container_cpu_usage_seconds_total{{{labels}}} {self._used[pod]}\n")
            lines.append(f"container_memory_working_set_bytes{{{labels}}} 3e8\n")
        return "".join(lines)


@pytest.fixture(scope="module")
def load() -> Load:
    """At first, nobody asks."""
    return Load()


def _label(name: str) -> str:
    return f"__meta_kubernetes_service_label_{re.sub('[^a-zA-Z0-9]', '_', name)}"


def _targets(api: Api) -> list[dict[str, Any]]:
    """Return what Prometheus finds in a cluster: Debian's is built without Kubernetes, and asks here instead."""
    core = f"/api/v1/namespaces/{NAMESPACE}"
    slices = api("GET", f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices")["items"]
    services = {one["metadata"]["name"]: one["metadata"]["labels"] for one in api("GET", f"{core}/services")["items"]}
    targets = []
    for part in slices:
        service = part["metadata"]["labels"]["kubernetes.io/service-name"]
        for endpoint, port in itertools.product(part["endpoints"] or (), part["ports"] or ()):
            labels = {
                "__meta_kubernetes_namespace": NAMESPACE,
                "__meta_kubernetes_service_name": service,
                "__meta_kubernetes_pod_name": endpoint["targetRef"]["name"],
                "__meta_kubernetes_endpointslice_port_name": port["name"],
                **{_label(name): value for name, value in services[service].items()},
            }
            targets.append({"targets": [f"{endpoint['addresses'][0]}:{port['port']}"], "labels": labels})
    return targets


def _scraped(monitor: dict[str, Any], address: str) -> dict[str, Any]:
    """Return the job that prometheus-operator makes of a monitor, whose pods all answer at one address here."""
    [endpoint] = monitor["spec"]["endpoints"]
    kept = {_label(name): value for name, value in monitor["spec"]["selector"]["matchLabels"].items()}
    kept["__meta_kubernetes_endpointslice_port_name"] = endpoint["port"]
    copied = {
        f"__meta_kubernetes_{name}": name.removesuffix("_name") for name in ("namespace", "service_name", "pod_name")
    }
    spelt = {"sourceLabels": "source_labels", "targetLabel": "target_label"}
    return {
        "job_name": f"serviceMonitor/{monitor['metadata']['name']}/0",
        "metrics_path": endpoint["path"],
        "http_sd_configs": [{"url": f"http://{address}/targets", "refresh_interval": "1s"}],
        "relabel_configs": [
            *({"source_labels": [name], "regex": value, "action": "keep"} for name, value in kept.items()),
            *({"source_labels": [name], "target_label": target} for name, target in copied.items()),
            *({spelt.get(key, key): value for key, value in one.items()} for one in endpoint["relabelings"]),
            {"source_labels": ["pod"], "target_label": "__param_pod"},
            {"target_label": "__address__", "replacement": address},
        ],
    }


@pytest.fixture(scope="module")
def prometheus(cluster: Api, load: Load, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that scrapes the pods that the shipped monitor selects, with the labels that it gives them."""

    def answer(path: str) -> str:
        if path == "/targets":
            return json.dumps(_targets(cluster))
        query = parse_qs(urlsplit(path).query)
        return load.page(query["pod"][0]) if query else load.cadvisor()

    with pages(answer) as address:
        pods = _scraped(one_of("cluster", "ServiceMonitor", "bike-serving"), address)
        kubelet = {"job_name": "cadvisor", "honor_labels": True, "static_configs": [{"targets": [address]}]}
        with scraping(tmp_path_factory.mktemp("prometheus"), pods, kubelet) as url:
            yield url


def _rules(manifest: dict[str, Any], windows: dict[str, str]) -> dict[str, Any]:
    text = manifest["data"]["config.yaml"]
    for shipped, short in windows.items():
        assert shipped in text
        text = text.replace(shipped, short)
    return dict(yaml.safe_load(text))


@pytest.fixture(scope="module")
def adapter(cluster: Api, prometheus: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """The adapter with the shipped rules, registered by the shipped manifest, with the rights of its own manifests.

    It serves the processor's use, too, by its own rules, which in a cluster may be metrics-server's.
    """
    folder, port = tmp_path_factory.mktemp("adapter"), free_port()
    definitions = cluster_tools.FOLDER / "definitions"
    for name in ("service-account", "cluster-role", "role-binding-auth-reader"):
        cluster.define(name)
    account = f"/api/v1/namespaces/{MONITORING}/serviceaccounts/prometheus-adapter/token"
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    token = cluster("POST", account, request)["status"]["token"]
    kubeconfig = Api(cluster.address, token, cluster.authority).kubeconfig(folder / "kubeconfig")
    shipped = {one["kind"]: one for one in objects("prometheus-adapter.yaml")}
    own = yaml.safe_load((definitions / "config-map.yaml").read_text(encoding="utf-8"))
    rules = _rules(shipped["ConfigMap"], {"[2m]": "[15s]"}) | _rules(own, {"[4m]": "[15s]", '"5m"': '"1s"'})
    (folder / "config.yaml").write_text(yaml.safe_dump(rules), encoding="utf-8")
    registered = [
        shipped["APIService"],
        yaml.safe_load((definitions / "api-service.yaml").read_text(encoding="utf-8")),
    ]
    # There is no network of services here.
    service = yaml.safe_load((definitions / "service.yaml").read_text(encoding="utf-8"))
    cluster.apply({**service, "spec": {"type": "ExternalName", "externalName": "localhost"}})
    for one in registered:
        one["spec"]["service"]["port"] = port
        cluster.apply(one)
    with running(
        folder,
        program("prometheus-adapter"),
        f"--config={folder / 'config.yaml'}",
        f"--prometheus-url={prometheus}",
        "--metrics-relist-interval=2s",
        "--metrics-max-age=20s",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={folder}",
        *(f"--{purpose}-kubeconfig={kubeconfig}" for purpose in ("lister", "authentication", "authorization")),
    ):
        for one in registered:
            eventually(
                lambda one=one: _conditions(cluster("GET", cluster.path(one))).get("Available", ["False"])[0] == "True"
            )
        yield cluster
    for one in registered:
        cluster("DELETE", cluster.path(one))


def _conditions(answer: dict[str, Any]) -> dict[str, tuple[str, str, str]]:
    """Return status, reason and message of each condition of an object."""
    conditions = answer.get("status", {}).get("conditions") or ()
    return {one["type"]: (one["status"], one["reason"], one["message"]) for one in conditions}


@pytest.fixture(scope="module")
def scaled(adapter: Api) -> Api:
    """What serves, of the overlay `cluster`, in a namespace of its own."""
    manifests = [
        one
        for one in objects("cluster")
        if one["kind"] in ("PersistentVolumeClaim", "Deployment", "Service", "HorizontalPodAutoscaler")
    ]
    for one in manifests:
        if one["kind"] == "HorizontalPodAutoscaler":
            behavior = one["spec"]["behavior"]["scaleDown"]
            assert behavior["stabilizationWindowSeconds"] == 300
            behavior["stabilizationWindowSeconds"] = 300 // 8
    adapter.deploy(NAMESPACE, manifests)
    return adapter


def replicas(api: Api) -> int:
    return int(api.get("apps/v1", "Deployment", SCALER, NAMESPACE).get("status", {}).get("availableReplicas", 0))


def conditions(api: Api) -> dict[str, tuple[str, str, str]]:
    return _conditions(api.get("autoscaling/v2", "HorizontalPodAutoscaler", SCALER, NAMESPACE))


def stays(look: Callable[[], int], number: int, seconds: float = 12) -> None:
    """Look for as long as several rounds of the autoscaler take."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert look() == number
        time.sleep(0.5)


def is_missing(api: Api) -> bool:
    """Whether the autoscaler says that it has no metric, and which."""
    status, reason, message = conditions(api).get("ScalingActive", ("", "", ""))
    return (status, reason) == ("False", "FailedGetPodsMetric") and "bike_requests_per_second" in message


def test_before_the_first_request_there_are_as_few_pods_as_the_manifest_says(scaled: Api) -> None:
    eventually(lambda: is_missing(scaled), SECONDS)
    stays(lambda: replicas(scaled), 2)


def test_more_requests_bring_as_many_pods_as_each_answers_1500(scaled: Api, load: Load) -> None:
    load.requests = 5400
    eventually(lambda: replicas(scaled) == 4, SECONDS)
    stays(lambda: replicas(scaled), 4)
    status = scaled.get("autoscaling/v2", "HorizontalPodAutoscaler", SCALER, NAMESPACE)["status"]
    by_type = {one["type"]: one for one in status["currentMetrics"]}
    assert by_type["Pods"]["pods"]["metric"]["name"] == "bike_requests_per_second"
    assert by_type["Resource"]["resource"]["name"] == "cpu"
    assert conditions(scaled)["ScalingActive"][0] == "True"


def test_only_who_may_reads_the_metric(scaled: Api) -> None:
    path = f"/apis/custom.metrics.k8s.io/v1beta2/namespaces/{NAMESPACE}/pods/*/bike_requests_per_second"
    items = scaled("GET", path)["items"]
    assert {one["describedObject"]["name"] for one in items} == {
        one["metadata"]["name"]
        for one in scaled("GET", f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=app={SCALER}")["items"]
    }
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token = scaled("POST", f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default/token", request)["status"]["token"]
    with pytest.raises(RefusedError, match="forbidden"):
        Api(scaled.address, token, scaled.authority)("GET", path)


def test_a_metric_that_is_missing_is_told_and_takes_no_pod(scaled: Api, load: Load) -> None:
    load.requests = None
    eventually(lambda: is_missing(scaled), SECONDS)
    stays(lambda: replicas(scaled), 4)


def test_without_the_metric_the_processor_brings_pods(scaled: Api, load: Load) -> None:
    # 1.5 cores of the 0.5 that a pod asks for: twice the target.
    load.cores = 1.5
    eventually(lambda: replicas(scaled) == 8, SECONDS)
    load.cores = 0.1


def test_silence_takes_pods_but_not_the_last_two(scaled: Api, load: Load) -> None:
    load.requests = 0
    eventually(lambda: replicas(scaled) == 2, SECONDS)
    eventually(lambda: conditions(scaled)["ScalingLimited"][:2] == ("True", "TooFewReplicas"))
    stays(lambda: replicas(scaled), 2)


def test_a_flood_brings_no_more_pods_than_the_manifest_allows(scaled: Api, load: Load) -> None:
    load.requests = 60_000
    eventually(lambda: replicas(scaled) == 8, SECONDS)
    eventually(lambda: conditions(scaled)["ScalingLimited"][:2] == ("True", "TooManyReplicas"))
    stays(lambda: replicas(scaled), 8)
