"""What versions answer, counted: against a count by hand, and as a client of the metrics sees it."""

from __future__ import annotations

import json
import urllib.request

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bike_pipeline import features
from bike_pipeline.serving.server.metrics import Metrics
from bike_pipeline.serving.server.tensors import FLOAT, INT64, Signature, TensorSpec
from tests.serving.running import row

FLOATS, WHOLE = TensorSpec(FLOAT, (-1,)), TensorSpec(INT64, (-1,))
INPUTS = {f.name: WHOLE if f.kind == "int" else FLOATS for f in features.MODEL_INPUTS}
RENTALS = Signature("serving_all_inputs", INPUTS, {"cnt": FLOATS}, batches=True)
INTERVALS = Signature(features.SERVING_INTERVALS, INPUTS, {"cnt": FLOATS, "high": FLOATS, "low": FLOATS}, batches=True)


def told(text):
    """Return every sample of metrics by name and labels."""
    families = text_string_to_metric_families(text.decode() if isinstance(text, bytes) else text)
    return {(s.name, *sorted(s.labels.items())): s.value for family in families for s in family.samples}


def sample(metrics, name, **labels):
    text = metrics.text() if isinstance(metrics, Metrics) else metrics
    return told(text)[(name, *sorted({"model_name": "m", "version": "1", **labels}.items()))]


def hours(count, **values):
    """Return rows within every range, but for what is given."""
    within = {f.name: np.full(count, f.default if f.default is not None else f.minimum) for f in features.MODEL_INPUTS}
    return {name: np.asarray(column) for name, column in {**within, **values}.items()}


@pytest.mark.parametrize("sizes", [[1], [1] * 1500, [700, 700, 700], [1024], [2500]])
def test_counts_are_those_of_all_rows_however_they_come(sizes):
    metrics, random = Metrics(), np.random.default_rng(3)
    table = metrics.model.of_version("m", 1).table(RENTALS)
    every = []
    for size in sizes:
        answers = random.gamma(1.2, 160.0, size).astype(np.float32)
        every.append(answers)
        # Rows that filled a call up are none.
        filled = hours(size + 3, hum=np.full(size + 3, 7.0))
        filled["hum"][:size] = 0.5
        table.add(filled, {"cnt": np.append(answers, [9e9, 9e9, 9e9])}, size)
    answers = np.concatenate(every)
    text = metrics.text()
    for bound in (0.0, 50.0, 400.0):
        assert sample(text, "bike_answered_rentals_bucket", le=f"{bound:g}") == (answers <= bound).sum()
    assert sample(text, "bike_answered_rentals_bucket", le="+Inf") == len(answers)
    assert sample(text, "bike_answered_rentals_count") == sample(text, "bike_rows_total") == len(answers)
    assert sample(text, "bike_answered_rentals_sum") == pytest.approx(answers.sum(dtype=np.float64), rel=1e-6)
    assert sample(text, "bike_rows_out_of_range_total") == 0


@pytest.mark.parametrize(
    ("feature", "value", "out"),
    [
        ("temp", 1.0, False),
        ("temp", 0.0, False),
        ("temp", 86.0, True),  # degrees Fahrenheit
        ("temp", np.nan, True),
        ("hum", -0.01, True),
        ("hr", 24, True),
        ("weathersit", 5, True),
        ("yr", 40, False),
        ("yr", -1, True),
        # What is not above 0 stands for a value that was not sent.
        ("temp_mean_3h", -1.0, False),
        ("temp_mean_3h", np.nan, True),
        ("weathersit_mean_3h", 0.5, True),
        ("day", 32, True),
        ("day", 0, False),
    ],
)
def test_a_value_out_of_its_range_is_counted_by_its_feature(feature, value, out):
    metrics = Metrics()
    table = metrics.model.of_version("m", 1).table(RENTALS)
    table.add(hours(4, **{feature: [value] * 2 + hours(2)[feature].tolist()}), {"cnt": np.ones(4, np.float32)}, 4)
    text = metrics.text()
    assert (
        sample(text, "bike_rows_out_of_range_total")
        == sample(text, "bike_values_out_of_range_total", feature=feature)
        == (2 if out else 0)
    )
    assert sample(text, "bike_rows_total") == 4


def test_answers_that_are_no_number_are_counted_apart():
    metrics = Metrics()
    table = metrics.model.of_version("m", 1).table(RENTALS)
    table.add(hours(3), {"cnt": np.array([5.0, np.nan, np.inf], np.float32)}, 3)
    text = metrics.text()
    assert sample(text, "bike_answers_without_number_total") == 2
    assert sample(text, "bike_answered_rentals_count") == 1


def test_the_width_of_an_interval_is_between_its_outer_quantiles():
    metrics = Metrics()
    table = metrics.model.of_version("m", 1).table(INTERVALS)
    ends = {"low": [80.0, np.nan], "high": [130.0, np.nan], "cnt": [100.0, 90.0]}
    table.add(hours(2), {name: np.array(values, np.float32) for name, values in ends.items()}, 2)
    text = metrics.text()
    assert (sample(text, "bike_interval_width_rentals_count"), sample(text, "bike_interval_width_rentals_sum")) == (
        1,
        50,
    )
    # Without an interval it is an answer all the same.
    assert sample(text, "bike_answers_without_number_total") == 0


def test_what_is_no_answer_of_this_model_is_not_watched():
    other = Signature("serving_default", {"x": FLOATS}, {"y": FLOATS}, batches=True)
    assert Metrics().model.of_version("m", 1).table(other) is None


def test_fewer_answers_than_rows_are_left_out():
    metrics = Metrics()
    table = metrics.model.of_version("m", 1).table(RENTALS)
    table.add(hours(3), {"cnt": np.ones(1, np.float32)}, 3)
    assert sample(metrics, "bike_rows_total") == 0


def test_a_server_without_any_version_says_so():
    assert told(Metrics().text())["bike_versions_available",] == 0


def test_the_versions_before_stay_a_while_and_go_then():
    model = Metrics().model
    for number in range(20):
        version = model.of_version("m", number)
        version.begin()
        if number != 7:
            version.end()
    count, available = [metric.samples for metric in model.collect()][:2]
    assert [sample.value for sample in count] == [1]
    assert {s.labels["version"]: s.value for s in available} == {
        "7": 1.0, "15": 0.0, "16": 0.0, "17": 0.0, "18": 0.0, "19": 0.0
    }  # fmt: skip


def test_a_server_tells_what_it_answered(server):
    instances = [row(8, 0.5), row(30, 0.25)]
    body = json.dumps({"instances": instances}).encode()
    with urllib.request.urlopen(f"{server.url}:predict", data=body, timeout=60) as response:
        assert json.load(response)["predictions"] == [58.0, 55.0]
    with urllib.request.urlopen(f"http://{server.rest}/monitoring/prometheus/metrics", timeout=60) as response:
        text = response.read()
    labels = {"model_name": "bike_demand"}
    assert sample(text, "bike_answered_rentals_sum", **labels) == 113.0
    assert sample(text, "bike_values_out_of_range_total", feature="hr", **labels) == 1
    assert sample(text, "bike_version_available", **labels) == 1
