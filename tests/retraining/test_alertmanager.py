"""The real Alertmanager with the shipped routes sends concept drift to the real listener, and it alone."""

from __future__ import annotations

import json
import urllib.request
from contextlib import ExitStack

import pytest

from bike_pipeline.retraining.ledger import Ledger
from bike_pipeline.retraining.ledger_tables import of_file
from bike_pipeline.retraining.listener import listening
from bike_pipeline.retraining.triggers.concept_drift import ALERT
from tests.database_servers import free_port
from tests.monitoring.alerting import alertmanager_configuration, get, wait_for
from tests.monitoring_servers import command, started
from tests.retraining.alerts import LABELS, alert

pytestmark = pytest.mark.slow
TOKEN = "what-only-both-of-them-know"


@pytest.fixture
def ledger(tmp_path):
    """A ledger in a file: the listener writes it while the test reads."""
    return Ledger(of_file(tmp_path / "ledger.sqlite"))


@pytest.fixture
def alertmanager(ledger, tmp_path, request):
    """Start Alertmanager before a listener, with the token that the test gives it; return its port."""
    command("prometheus-alertmanager")
    port = free_port()
    with ExitStack() as stack:
        address = stack.enter_context(listening("127.0.0.1:0", TOKEN.encode(), ledger, lambda _: False))
        routes = alertmanager_configuration(tmp_path, int(address.rpartition(":")[2]), request.param)
        stack.enter_context(
            started(
                tmp_path, "prometheus-alertmanager", f"--config.file={routes}", f"--storage.path={tmp_path / 'alerts'}",
                f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=",
            )
        )  # fmt: skip
        wait_for(lambda: get(port, "/api/v2/status"), "answer of Alertmanager")
        yield port


def fire(port, **changed):
    """Tell Alertmanager of an alert as Prometheus does."""
    told = alert(**changed)
    content = json.dumps([{key: told[key] for key in ("labels", "annotations", "generatorURL")}]).encode()
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/v2/alerts", content, {"Content-Type": "application/json"}, method="POST"
    )
    urllib.request.urlopen(asked, timeout=30).close()


def failed(port):
    """Return how many of its notifications failed."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    name = 'alertmanager_notifications_failed_total{integration="webhook"}'
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


@pytest.mark.parametrize("alertmanager", [TOKEN], indirect=True)
def test_concept_drift_is_in_the_ledger_and_other_alerts_are_not(alertmanager, ledger):
    other = {key: value for key, value in LABELS.items() if key != "trigger"} | {"alertname": "OutliersMany"}
    fire(alertmanager, labels=other, summary="Many outliers.")
    fire(alertmanager, summary="Labels and answers have moved apart (cusum).")
    control = wait_for(lambda: ledger.control(ALERT), "alert in the ledger")
    assert control["summary"] == "Labels and answers have moved apart (cusum)."
    assert failed(alertmanager) == 0


@pytest.mark.parametrize("alertmanager", ["what-somebody-guessed"], indirect=True)
def test_with_a_false_token_nothing_is_in_the_ledger(alertmanager, ledger):
    fire(alertmanager)
    wait_for(lambda: failed(alertmanager) > 0, "refusal")
    assert ledger.control(ALERT) is None
