"""What is told of models, versions, labels and metrics over REST."""

from __future__ import annotations

import re

import pytest

# A server that serves two models is started, and a model made for it.
pytestmark = pytest.mark.slow

TENSOR_KEYS = {"dtype", "tensor_shape", "name"}


def test_the_state_of_every_version(ask, second):
    answer = ask("GET", f"/v1/models/{second}")
    assert answer.status == 200
    assert answer.json == {
        "model_version_status": [
            {"version": version, "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
            for version in ("2", "1")
        ]
    }


@pytest.mark.parametrize(("place", "version"), [("/versions/1", "1"), ("/labels/canary", "2"), ("/labels/stable", "1")])
def test_the_state_of_one_version(ask, second, place, version):
    (found,) = ask("GET", f"/v1/models/{second}{place}").json["model_version_status"]
    assert (found["version"], found["state"]) == (version, "AVAILABLE")


def test_the_state_of_what_is_not_served(ask, second, url):
    answer = ask("GET", "/v1/models/nothing")
    assert (answer.status, answer.error) == (404, "Could not find any versions of model nothing")
    answer = ask("GET", f"/v1/models/{second}/versions/9")
    assert (answer.status, answer.error) == (404, f"Could not find version 9 of model {second}")
    answer = ask("GET", f"{url}/labels/nobody")
    assert answer.status == 400
    assert answer.error.startswith("Unrecognized servable version label: nobody")


@pytest.mark.parametrize(
    ("place", "version"),
    [
        ("", 2),
        ("/versions/1", 1),
        ("/versions/2", 2),
        ("/versions/01", 1),
        ("/labels/stable", 1),
        ("/labels/canary", 2),
    ],
)
def test_the_version_or_label_that_was_asked_answers(predict, place, version):
    assert predict("which", {"instances": [0, 0]}, place).json == {"predictions": [version, version]}


def test_metadata_of_the_bike_model(ask, url, conforming, rows):
    answer = ask("GET", f"{url}/metadata")
    assert answer.status == 200
    assert set(answer.json) == {"model_spec", "metadata"}
    spec = answer.json["model_spec"]
    assert spec["name"] == conforming.model
    assert spec["signature_name"] == ""
    assert isinstance(spec["version"], str)
    signature = answer.json["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert set(signature["inputs"]) == set(rows)
    assert signature["method_name"] == "tensorflow/serving/predict"
    assert set(signature["outputs"]["cnt"]) >= TENSOR_KEYS
    assert signature["outputs"]["cnt"]["dtype"] == "DT_FLOAT"
    shape = signature["inputs"]["hr"]["tensor_shape"]
    assert shape == {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}


def test_metadata_of_versions_and_labels(ask, second):
    for place, version in (("", "2"), ("/versions/1", "1"), ("/labels/stable", "1")):
        assert ask("GET", f"/v1/models/{second}{place}/metadata").json["model_spec"]["version"] == version
    answer = ask("GET", "/v1/models/nothing/metadata")
    assert (answer.status, answer.error) == (404, "Servable not found for request: Latest(nothing)")
    assert ask("GET", f"/v1/models/{second}/versions/9/metadata").status == 404
    assert ask("GET", f"/v1/models/{second}/labels/nobody/metadata").status == 400


def _metric(text, name, **labels):
    """Return the sum of a metric's values over all series that carry these labels."""
    found = [
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith(name + "{") and all(f'{key}="{value}"' in line for key, value in labels.items())
    ]
    return sum(found)


def test_metrics_are_told_as_prometheus_reads_them(ask, conforming, url):
    if "metrics" not in conforming.extras:
        pytest.skip("not told of the server under test: BIKE_SERVING_METRICS")
    path, model = "/monitoring/prometheus/metrics", conforming.model
    # What was counted before counts on: only differences are known.
    ask("POST", f"{url}:predict", {"instances": []})
    before = ask("GET", path)
    assert before.status == 200
    assert before.headers["content-type"].startswith("text/plain")
    for _ in range(3):
        ask("POST", f"{url}:predict", {"instances": []})
    after = ask("GET", path).body.decode()
    name = ":tensorflow:serving:request_count"
    counted = [_metric(text, name, model_name=model) for text in (before.body.decode(), after)]
    assert counted[1] - counted[0] == 3
    assert re.search(r"^# TYPE :tensorflow:serving:request_latency histogram$", after, re.MULTILINE)
    buckets = re.findall(rf':tensorflow:serving:request_latency_bucket\{{model_name="{model}".*?le="([^"]+)"\}}', after)
    assert buckets[0] == "10"
    assert float(buckets[1]) == pytest.approx(18)
    assert buckets[33] == "+Inf"
    for line in after.splitlines():
        assert line.startswith("#") or re.fullmatch(r'[a-zA-Z_:][\w:]*(\{([\w:]+="[^"]*",?)*\})? \S+', line), line
