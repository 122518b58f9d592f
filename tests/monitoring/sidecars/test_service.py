"""Sidecars over HTTP, asked with the CloudEvents SDK as Seldon Core, KServe and Knative's brokers ask."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import math
import socket
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event, to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

from bike_pipeline import features
from bike_pipeline.monitoring.sidecars import service
from bike_pipeline.monitoring.sidecars.drift import Drift
from bike_pipeline.monitoring.sidecars.explainer import Explainer
from bike_pipeline.monitoring.sidecars.outlier import Outliers
from tests.monitoring.watched import Watched
from tests.monitoring.watching import DECISION, SETTINGS, reference, requests

SELDON, KSERVE = "io.seldon.serving.inference.request", "org.kubeflow.serving.inference.request"
NAMES = [feature.name for feature in features.MODEL_INPUTS]
ROW = {name: float(values[0]) for name, values in requests("2012-06-01", "2012-06-01").items() if name in NAMES}


class Heard:
    """A sidecar that keeps what it was shown."""

    kind = "outlier"

    def __init__(self, says=None):
        self.asked, self.says = [], says or {"data": {"is_outlier": [0]}}

    def look(self, asked):
        self.asked.append(asked)
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


class Served:
    """A sidecar that answers on a free port, in a thread."""

    def __init__(self, sidecar):
        self._sidecar, self._started = sidecar, threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    async def _serve(self):
        from aiohttp import web

        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        runner = web.AppRunner(service.application(self._sidecar, "/bike-pipeline/test"))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]
        self._started.set()
        await self._stop.wait()
        await runner.cleanup()

    def __enter__(self):
        self._thread.start()
        assert self._started.wait(30)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    def post(self, headers, body):
        """Return status, headers and body."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, dict(response.headers), response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers), error.read()

    def send(self, data, kind=SELDON, *, structured=False, **attributes):
        """Send an event by the SDK; return status and the event that came back, if one did."""
        about = {"id": "e-1", "type": kind, "source": "io.seldon.serving.deployment.bike", "requestid": "r-1"}
        event = CloudEvent({**about, "datacontenttype": "application/json", **attributes}, data)
        message = (to_structured_event if structured else to_binary_event)(event)
        status, headers, body = self.post(message.headers, message.body)
        return status, from_http_event(HTTPMessage(headers, body)) if status == 200 else body


@pytest.mark.parametrize("structured", [False, True])
@pytest.mark.parametrize("kind", [SELDON, KSERVE])
def test_an_event_is_answered_in_its_mode_with_what_it_belongs_to(kind, structured):
    heard, at = Heard(), dt.datetime(2026, 11, 30, 12, tzinfo=dt.UTC)
    with Served(heard) as served:
        data = {"instances": [ROW, {**ROW, "hr": 9}]}
        status, event = served.send(data, kind, structured=structured, time=at, inferenceservicename="bike")
    assert status == 200
    assert event.get_type() == kind.replace("request", "outlier")
    assert (event.get_extension("requestid"), event.get_extension("inferenceservicename")) == ("r-1", "bike")
    assert event.get_data() == {"data": {"is_outlier": [0]}}
    (asked,) = heard.asked
    assert (asked.request_id, asked.at) == ("r-1", at.replace(tzinfo=None))
    assert list(asked.columns["hr"]) == [ROW["hr"], 9]
    assert len(asked.rows) == 2


V2 = [{"name": name, "shape": [2, 1], "datatype": "FP32", "data": [value, value]} for name, value in ROW.items()]
REQUIRED = {feature.name: ROW[feature.name] for feature in features.REQUIRED_INPUTS}


@pytest.mark.parametrize(
    "data",
    [
        {"instances": [ROW, ROW]},
        {"signature_name": "serving_default", "instances": [REQUIRED, REQUIRED]},
        {"instances": [{name: [value] for name, value in ROW.items()}] * 2},
        {"inputs": {name: [value, value] for name, value in ROW.items()}},
        {"inputs": {name: [[value], [value]] for name, value in ROW.items()}},
        {"inputs": V2, "parameters": {}},
        {"instances": [{**ROW, "another": "input"}] * 2},
    ],
)
def test_every_form_of_a_request_is_read(data):
    heard = Heard()
    with Served(heard) as served:
        assert served.send(data)[0] == 200
    (asked,) = heard.asked
    for name in REQUIRED:
        np.testing.assert_array_equal(asked.columns[name], [ROW[name]] * 2)


def test_a_value_that_is_null_is_no_number_and_no_fault_of_the_event():
    heard = Heard()
    with Served(heard) as served:
        assert served.send({"instances": [{**ROW, "hum": None}]})[0] == 200
    assert np.isnan(heard.asked[0].columns["hum"][0])


@pytest.mark.parametrize(
    ("data", "what"),
    [
        ({}, "neither instances nor inputs"),
        ({"instances": [ROW], "inputs": {}}, "or both"),
        (json.dumps([ROW]), "neither instances nor inputs"),
        ({"instances": []}, "not a list of objects"),
        ({"instances": [1, 2]}, "not a list of objects"),
        ({"instances": {"hr": 1}}, "not a list of objects"),
        ({"instances": [ROW, REQUIRED]}, "different inputs"),
        ({"instances": [{"hr": 8}]}, "lacks yr"),
        ({"instances": [{**ROW, "temp": "warm"}]}, "temp is not a number"),
        ({"instances": [{**ROW, "holiday": True}]}, "holiday is not a number"),
        ({"instances": [{**ROW, "hr": [1, 2]}]}, "hr is not a number"),
        ({"instances": [{**ROW, "hr": 10**30}]}, "hr is not a number"),
        ({"inputs": [{"data": [1]}]}, "no name or no data"),
        ({"inputs": [1]}, "no name or no data"),
        ({"inputs": "x"}, "neither an object nor a list"),
        ({"inputs": {**{name: [value] for name, value in ROW.items()}, "hr": [1, 2]}}, "different lengths"),
        ({"inputs": {name: [] for name in ROW}}, "no rows"),
        ({"inputs": {name: [value] * 10_001 for name, value in ROW.items()}}, "more than 10,000"),
    ],
)
def test_what_is_no_request_is_refused_in_a_sentence(data, what):
    heard = Heard()
    with Served(heard) as served:
        status, body = served.send(data)
        assert status == 400
        assert what in json.loads(body)["error"]
        assert served.send({"instances": [ROW]})[0] == 200
    assert len(heard.asked) == 1


BINARY = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/x", "ce-type": SELDON}
STRUCTURED = {"Content-Type": "application/cloudevents+json"}


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, b"{}"),
        ({"Content-Type": "application/json"}, json.dumps({"instances": [ROW]}).encode()),
        ({**BINARY, "ce-specversion": "7.0"}, b"{}"),
        ({name: value for name, value in BINARY.items() if name != "ce-id"}, b"{}"),
        ({name: value for name, value in BINARY.items() if name != "ce-specversion"}, b"{}"),
        ({**BINARY, "ce-time": "yesterday"}, b"{}"),
        ({**BINARY, "Content-Type": "application/json"}, b"{"),
        ({**BINARY, "Content-Type": "application/json"}, b""),
        ({**BINARY, "Content-Type": "application/json"}, b"\xff\xfe"),
        ({**BINARY, "Content-Type": "application/json"}, b"[" * 100_000),
        (BINARY, b"\x00\x01"),
        (STRUCTURED, b""),
        (STRUCTURED, b"[]"),
        (STRUCTURED, b'"x"'),
        (STRUCTURED, b"{"),
        (STRUCTURED, json.dumps({"specversion": "1.0", "type": SELDON}).encode()),
        (STRUCTURED, json.dumps({"specversion": "1.0", "type": 1, "id": "1", "source": "/x"}).encode()),
        (STRUCTURED, json.dumps({"specversion": "1.0", "type": SELDON, "id": "1", "source": "/x"}).encode()),
        ({**STRUCTURED, **BINARY}, b"{}"),
    ],
)
def test_a_bad_event_is_refused_in_a_sentence_without_innards(headers, body):
    with Served(Heard()) as served:
        status, _, answered = served.post(headers, body)
    assert status == 400
    error = json.loads(answered)["error"]
    assert error
    assert "\n" not in error
    assert "Traceback" not in error
    assert len(error) < 500


def test_events_of_answers_and_of_other_sidecars_are_taken_and_not_answered():
    heard = Heard()
    with Served(heard) as served:
        for kind in (
            "io.seldon.serving.inference.response",
            "io.seldon.serving.inference.outlier",
            "com.example.other",
        ):
            assert served.send({"predictions": [1.0]}, kind) == (202, b"")
    assert not heard.asked


def test_a_large_event_is_refused_and_the_next_one_answered():
    with Served(Heard()) as served:
        status, _, body = served.post({**BINARY, "Content-Type": "application/json"}, b" " * (service.MOST_BYTES + 1))
        assert (status, json.loads(body)["error"]) == (413, "the event is larger than 4,194,304 bytes")
        assert served.send({"instances": [ROW]})[0] == 200


def test_a_fault_of_its_own_is_told_without_innards(caplog):
    with Served(Heard(RuntimeError("secret innards"))) as served:
        status, body = served.send({"instances": [ROW]})
    assert (status, json.loads(body)) == (500, {"error": "internal error; it is in the log"})
    assert "secret innards" in caplog.text


def test_it_tells_that_it_is_ready():
    with Served(Heard()) as served, socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answered = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answered.startswith(b"HTTP/1.1 200")
    assert answered.endswith(b'{"sidecar": "outlier"}')


def week(first, last, **changed):
    """Return the hours of some days as instances."""
    rows = requests(first, last)
    columns = {name: np.broadcast_to(changed.get(name, rows[name]), rows["hr"].shape) for name in NAMES}
    return [dict(zip(NAMES, map(float, row), strict=True)) for row in zip(*columns.values(), strict=True)]


def test_drift_is_told_of_each_so_many_rows():
    """Temperatures in °F from one week on: rows before are collected, and then judged together."""
    sidecar = Drift(reference(), 168, SETTINGS, DECISION)
    with Served(sidecar) as served:
        sound = week("2012-05-01", "2012-05-07")
        assert served.send({"instances": sound[:100]})[0] == 202
        status, event = served.send({"instances": sound[100:]})
        assert status == 200
        assert event.get_type() == "io.seldon.serving.inference.drift"
        assert event.get_data()["data"]["is_drift"] == 0
        for first, last in (("2012-05-08", "2012-05-14"), ("2012-05-15", "2012-05-21")):
            hot = week(first, last, temp=np.float64(1.6))
            status, event = served.send({"instances": hot}, structured=True)
            assert status == 200
    said = event.get_data()["data"]
    assert said["is_drift"] == 1
    changed = [one for one in said["verdicts"] if one["data"]["status"] == "changed"]
    assert ("range", "temp") in {(one["meta"]["detector"], one["meta"]["subject"]) for one in changed}
    assert any("Fahrenheit" in one["data"]["reason"] for one in changed)
    assert event.get_data()["meta"]["windows"] == 3


def test_rows_of_the_same_hours_are_one_window():
    sidecar = Drift(reference(), 168, SETTINGS, DECISION)
    instances = week("2012-05-01", "2012-05-07")
    with Served(sidecar) as served:
        for _ in range(5):
            status, event = served.send({"instances": instances})
            assert status == 200
    assert event.get_data()["meta"]["windows"] == 1
    assert event.get_data()["meta"]["rows"] == 168 * DECISION.windows


def test_an_outlier_is_told_by_row_with_its_reason():
    sidecar = Outliers(reference().columns)
    strange = {**ROW, "mnth": 1.0, "hr": 3.0, "temp": 0.98, "atemp": 0.05, "hum": 0.01, "windspeed": 0.9}
    with Served(sidecar) as served:
        status, event = served.send({"instances": [ROW, {**ROW, "temp": 1.6}, {**ROW, "hum": None}, strange]})
    assert status == 200
    said = event.get_data()["data"]
    assert said["is_outlier"] == [0, 1, 1, 1]
    assert said["reasons"][0] == ""
    assert "Fahrenheit" in said["reasons"][1]
    assert "hum is no number" in said["reasons"][2]
    assert "no hour of training is like it" in said["reasons"][3]


def test_an_explanation_leads_from_the_mean_to_the_answer():
    rows, whole = requests(), [feature.name for feature in features.MODEL_INPUTS if feature.kind == "int"]

    def as_sent(columns):
        return {**columns, **{name: np.asarray(columns[name]).astype(np.int64) for name in whole}}

    watched = Watched(as_sent({**rows, features.LABEL: rows["label"]}))

    def predict(columns):
        return watched.predict(as_sent(columns))

    with Served(Explainer(predict, reference().columns)) as served:
        status, event = served.send({"instances": [ROW] * 10}, KSERVE)
    assert (status, event.get_type()) == (200, "org.kubeflow.serving.inference.explanation")
    said = event.get_data()
    assert said["meta"] == {"name": "Explainer", "rows": 10, "explained": 8}
    for one in said["data"]["explanations"]:
        total = one["base"] + math.fsum(part["value"] for part in one["parts"])
        assert total == pytest.approx(one["answer"], abs=1e-9)
        assert one["answer"] == pytest.approx(float(predict({n: np.array([v]) for n, v in ROW.items()})[0]))
