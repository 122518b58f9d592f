"""From a scrape of the real server by the real Prometheus to what the real Alertmanager sends, and whom it does not."""

from __future__ import annotations

import json
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from bike_pipeline.monitoring import exposition
from tests.database_servers import free_port
from tests.monitoring.alerting import (
    Receiver,
    alertmanager_configuration,
    get,
    prometheus_configuration,
    wait_for,
)
from tests.monitoring.reporting import measured, reported
from tests.monitoring_servers import command, started
from tests.serving.running import Running, row

pytestmark = pytest.mark.slow
TOKEN = "what-only-both-know"
DRIFT = measured("concept drift", "answers", "cusum")


@dataclass
class Watched:
    """A server that is watched.

    Attributes:
        server: the model server.
        kept: the folder of what the monitor keeps.
        receiver: what takes concept drift.
        prometheus: port of Prometheus.
        alertmanager: port of Alertmanager.
    """

    server: Running
    kept: Path
    receiver: Receiver
    prometheus: int
    alertmanager: int

    def tell(self, *measurements) -> None:
        """Write what the monitor says of measurements for the next scrape."""
        exposition.write(self.kept, exposition.MONITOR_FILE, exposition.of_report(reported(*measurements)))

    def ask(self, expression):
        """Return the samples of an expression."""
        return get(self.prometheus, "/api/v1/query", query=expression)["data"]["result"]

    def alerts(self):
        """Return what Alertmanager knows, by name and subject: active, or suppressed."""
        found = get(self.alertmanager, "/api/v2/alerts")
        return {(a["labels"]["alertname"], a["labels"].get("subject")): a["status"]["state"] for a in found}


@pytest.fixture(scope="module")
def programs():
    """Skip where one is not there, before a server is started."""
    for name in ("prometheus", "prometheus-alertmanager", "prometheus-node-exporter"):
        command(name)


@pytest.fixture
def watched(programs, watched_server, tmp_path, request):
    """Watch a server with the token that the test gives Alertmanager."""
    ports = {name: free_port() for name in ("prometheus", "alertmanager", "node")}
    receiver, metrics = Receiver(TOKEN), tmp_path / exposition.FOLDER
    metrics.mkdir()
    own = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    serving = int(watched_server.rest.rpartition(":")[2])
    told = alertmanager_configuration(tmp_path, receiver.port, request.param)
    asked = prometheus_configuration(tmp_path, ports["alertmanager"], serving=serving, monitor=ports["node"])
    with ExitStack() as stack:
        stack.enter_context(receiver.listening())
        for name, *arguments in (
            ("prometheus-node-exporter", "--collector.disable-defaults", "--collector.textfile",
             f"--collector.textfile.directory={metrics}", f"--web.listen-address={own['node']}"),
            ("prometheus-alertmanager", f"--config.file={told}", f"--storage.path={tmp_path / 'alerts'}",
             f"--web.listen-address={own['alertmanager']}", "--cluster.listen-address="),
            ("prometheus", f"--config.file={asked}", f"--storage.tsdb.path={tmp_path / 'samples'}",
             f"--web.listen-address={own['prometheus']}"),
        ):  # fmt: skip
            stack.enter_context(started(tmp_path, name, *arguments))
        yield Watched(watched_server, tmp_path, receiver, ports["prometheus"], ports["alertmanager"])


@pytest.mark.parametrize("watched", [TOKEN], indirect=True)
def test_concept_drift_reaches_the_webhook_and_data_at_fault_hold_it_back(watched):
    body = json.dumps({"instances": [row(8, 0.5), row(9, 86.0)]}).encode()
    for _ in range(5):
        urllib.request.urlopen(f"{watched.server.url}:predict", data=body, timeout=60).close()
    (sample,) = wait_for(lambda: watched.ask('bike_version_available{job="bike-serving"} == 1'), "version")
    assert (sample["metric"]["version"], sample["metric"]["model_name"]) == ("1", "bike_demand")
    (sample,) = wait_for(lambda: watched.ask('bike_values_out_of_range_total{feature="temp"}'), "value out of range")
    assert sample["value"][1] == "5"
    # Two samples make a rate.
    urllib.request.urlopen(f"{watched.server.url}:predict", data=body, timeout=60).close()
    wait_for(lambda: watched.ask("bike:requests:rate5m > 0"), "rate of requests")
    wait_for(lambda: watched.ask("bike:request_latency_seconds:p99_5m > 0"), "latency")

    # Data at fault look like drift; nobody shall train on them.
    moved = [measured("data drift", name, "population_stability") for name in ("temp", "hum")]
    watched.tell(DRIFT, *moved, measured("data fault", "temp", "unit"))
    wait_for(lambda: watched.alerts().get(("DataFault", "temp")) == "active", "alert on the data")
    # As the rule on a file that nobody writes any more asks.
    assert watched.ask('node_textfile_mtime_seconds{file=~".*bike_monitor.prom"}')
    wait_for(lambda: watched.alerts().get(("ConceptDrift", "answers")) == "suppressed", "drift that is held back")
    wait_for(lambda: watched.alerts().get(("DataDrift", "temp")) == "suppressed", "drift of the input at fault")
    wait_for(lambda: watched.alerts().get(("DataDrift", "hum")) == "active", "drift of another input")
    assert watched.receiver.taken == []

    watched.tell(DRIFT)
    (message, *_) = wait_for(lambda: watched.receiver.taken, "message")
    (alert,) = message["alerts"]
    assert alert["labels"]["alertname"] == "ConceptDrift"
    assert (alert["labels"]["detector"], alert["labels"]["subject"]) == ("cusum", "answers")
    assert alert["annotations"]["runbook_url"] == "docs/runbook.md#conceptdrift"
    assert watched.receiver.refused == []
    # What the rules wait longer for has not fired, and no rule failed.
    groups = get(watched.prometheus, "/api/v1/rules")["data"]["groups"]
    assert {rule["health"] for group in groups for rule in group["rules"]} == {"ok"}


@pytest.mark.parametrize("watched", ["what-somebody-guessed"], indirect=True)
def test_a_false_token_is_refused(watched):
    watched.tell(DRIFT)
    wait_for(lambda: watched.receiver.refused, "refusal")
    assert set(watched.receiver.refused) == {401}
    assert watched.receiver.taken == []
