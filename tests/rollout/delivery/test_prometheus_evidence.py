"""Evidence from Prometheus: the real one over the servers' own metrics, and answers that are none."""

from __future__ import annotations

import datetime as dt
import json
import threading
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import yaml

from bike_pipeline.errors import MonitoringError
from bike_pipeline.rollout.delivery.evidence import Evidence, Tracked
from bike_pipeline.rollout.delivery.judging import Status, checks_of
from bike_pipeline.rollout.delivery.prometheus_evidence import PrometheusEvidence
from bike_pipeline.serving.server import model_metrics
from bike_pipeline.serving.server.metrics import Metrics
from bike_pipeline.settings.rollout import RolloutEvidenceSettings, RolloutSettings
from tests.database_servers import free_port
from tests.monitoring.alerting import get, wait_for
from tests.monitoring_servers import command, started
from tests.rollout.delivery.logged import CANDIDATE, MODEL, STABLE

TRACKED = Tracked("canary", CANDIDATE, STABLE)


@contextmanager
def answering(content):
    """Answer every request with what a function returns of its path; yield the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = content(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def settings_of(port):
    where = RolloutEvidenceSettings(prometheus=f"http://127.0.0.1:{port}", timeout_seconds=10)
    return RolloutSettings(evidence=where)


def read(port, seconds=120):
    now = dt.datetime.now(dt.UTC)
    return PrometheusEvidence(settings_of(port), MODEL).read(TRACKED, now - dt.timedelta(seconds=seconds), now)


class ServerOfTrack:
    """The metrics of a server that answers more and more, each time it is scraped."""

    def __init__(self, version, answer, microseconds, failing):
        self._metrics, self._answer = Metrics(), answer
        self._microseconds, self._failing, self.scrapes = microseconds, failing, 0
        self._version = self._metrics.model.of_version(MODEL, version)
        self._version.begin()

    def text(self, _path):
        self.scrapes += 1
        for number in range(100):
            failed = number < self._failing
            self._metrics.request_count.add((MODEL, "UNAVAILABLE" if failed else "OK"))
            self._metrics.request_latency.add((MODEL, "Predict", "REST"), self._microseconds)
        name, buckets = "bike_answered_rentals", model_metrics.RENTALS_BUCKETS
        found = self._version.distributions.setdefault(name, model_metrics._Distribution(buckets))
        found.add(np.full(100, self._answer, np.float32))
        return self._metrics.text()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_real_prometheus_tells_what_the_servers_of_two_tracks_did(tmp_path):
    command("prometheus")
    servers = {
        "stable": ServerOfTrack(STABLE, 120.0, 900.0, 0),
        "canary": ServerOfTrack(CANDIDATE, 320.0, 9000.0, 20),
    }
    with ExitStack() as running:
        jobs = [
            {
                "job_name": track,
                "scrape_interval": "1s",
                "static_configs": [
                    {
                        "targets": [f"127.0.0.1:{running.enter_context(answering(server.text))}"],
                        "labels": {"track": track},
                    }
                ],
            }
            for track, server in servers.items()
        ]
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump({"scrape_configs": jobs}))
        port = free_port()
        arguments = (
            f"--config.file={tmp_path}/prometheus.yml",
            f"--storage.tsdb.path={tmp_path}",
            f"--web.listen-address=127.0.0.1:{port}",
        )
        running.enter_context(started(tmp_path, "prometheus", *arguments))
        wait_for(lambda: all(server.scrapes >= 12 for server in servers.values()), "twelve scrapes")
        wait_for(lambda: get(port, "/api/v1/query", query="count(up == 1)")["data"]["result"], "answer")
        found = read(port)
    assert found.stable.requests >= 1000
    assert found.stable.errors == 0
    assert found.candidate.errors == pytest.approx(0.2 * found.candidate.requests, abs=2)
    assert found.candidate.answers == pytest.approx(found.candidate.requests, rel=0.05)
    assert found.stable.latency.quantile(0.99) == pytest.approx(1.102, rel=0.01)
    assert found.candidate.latency.above(2.3).bad == found.candidate.latency.rows
    statuses = {check.name: check.status for check in checks_of(found, "canary", 500, RolloutSettings())}
    assert statuses["error share"] == statuses["latency"] == statuses["prediction difference"] == Status.FAILED
    assert statuses["answers"] == Status.PASSED


def vector(*samples):
    result = [{"metric": labels, "value": [0, value]} for labels, value in samples]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()


def test_without_a_series_nothing_was_asked():
    with answering(lambda _: vector()) as port:
        found = read(port)
    assert (found.candidate.requests, found.stable.requests, found.different) == (0, 0, None)
    assert {check.status for check in checks_of(found, "canary", 10, RolloutSettings())} == {Status.NOT_JUDGED}


def test_what_is_neither_answered_nor_a_fault_was_refused():
    with answering(lambda path: vector(({}, "7")) if "status%21~%22OK%7C" in path else vector()) as port:
        found = read(port)
    assert (found.candidate.client_errors, found.stable.client_errors, found.candidate.errors) == (7, 7, 0)


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf"])
def test_what_is_no_number_stays_none_and_is_a_status_of_its_own(value):
    with answering(lambda path: vector(({"le": "1000"}, value)) if "le" in path else vector(({}, value))) as port:
        found = read(port)
    assert isinstance(found, Evidence)
    checks = checks_of(found, "canary", 10, RolloutSettings())
    assert [check.status for check in checks] == [Status.NOT_FINITE]


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"data": null}', b'{"data": {"result": [{"value": 3}]}}'])
def test_an_answer_that_is_none_is_an_error_in_one_line(body):
    with answering(lambda _: body) as port, pytest.raises(MonitoringError, match="does not answer"):
        read(port)


def test_a_prometheus_that_is_not_there_is_an_error_in_one_line():
    with pytest.raises(MonitoringError, match="Connection refused"):
        read(free_port())
