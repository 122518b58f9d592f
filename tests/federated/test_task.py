"""What clients tell adds up to what all rows in one place would say, and is the same behind the wire."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
from functools import reduce
from types import SimpleNamespace

import numpy as np
import pytest

from bike_pipeline.errors import DataError, StageError
from bike_pipeline.federated import client, server, task
from bike_pipeline.federated.task import LabelSums, Task
from bike_pipeline.modeling import architectures, objective, preprocessing, training
from bike_pipeline.modeling.preprocessing import LearntSums
from bike_pipeline.modeling.trend import FEWEST_MONTHS, Trend
from tests.conftest import ROOT, TRAINING
from tests.data.making import make_rows, to_csv


@pytest.fixture(scope="module")
def rows(embedded_rows):
    """Every seventh hour of ten months: enough for a growth of its own."""
    return {name: values[:7_200:7] for name, values in embedded_rows.items() if name != "dteday"}


@pytest.fixture(scope="module")
def parts(rows):
    """The rows of three kinds of weather."""
    kinds = np.minimum(rows["weathersit"], 3)
    return [{name: values[kinds == kind] for name, values in rows.items()} for kind in (1, 2, 3)]


@pytest.fixture(scope="module")
def agreed(parts):
    """The task that clients agree on by what they send as text."""
    learnt = reduce(LearntSums.plus, [task.learnt_of(task.text_of(LearntSums.of(part))) for part in parts])
    told = [task.labels_of(task.text_of(LabelSums.of(part, learnt))) for part in parts]
    return Task.of(learnt, reduce(LabelSums.plus, told), TRAINING, 7)


def test_the_task_is_that_of_all_rows_in_one_place(rows, agreed):
    learnt = LearntSums.of(rows)
    assert agreed.learnt.learnt().moments.numpy() == pytest.approx(learnt.learnt().moments.numpy(), rel=1e-12)
    assert (agreed.learnt.rows, agreed.learnt.first_day, agreed.learnt.last_day) == learnt[1:]
    inputs, labels = training.split_labels(preprocessing.transformed_columns(rows, learnt.learnt()))
    trend = Trend.fit(inputs, labels)
    assert trend.growths == agreed.trend.growths != (0.0,) * 3
    assert (learnt.last_day - learnt.first_day) / 30.4 > FEWEST_MONTHS
    assert trend.starts == pytest.approx(agreed.trend.starts, rel=1e-9)
    assert (trend.repeated, trend.knots) == (agreed.trend.repeated, agreed.trend.knots)
    answers = labels * 0.0 + 4.0
    assert float(agreed.loss()(labels, answers)) == pytest.approx(float(objective.loss_of(labels)(labels, answers)))


def test_a_task_is_the_same_behind_the_wire(agreed, rows):
    again = Task.from_text(agreed.text())
    assert again.text() == agreed.text()
    assert (again.trend, again.variances, again.mean) == (agreed.trend, agreed.variances, agreed.mean)
    for own, other in zip(agreed.model().get_weights(), again.model().get_weights(), strict=True):
        assert own.tobytes() == other.tobytes()
    few = {name: values[:9] for name, values in rows.items()}
    assert agreed.answers(agreed.model(), few).tobytes() == again.answers(again.model(), few).tobytes()


@pytest.mark.slow
def test_a_proximal_loss_keeps_the_weights_near(agreed, parts):
    def moved(weight):
        model = agreed.model()
        before, trained = model.get_weights(), architectures.with_heads(model)
        training.fit(trained, *agreed.rows(parts[2]), agreed.settings, 7, client.near(trained, agreed.loss(), weight))
        return sum(float(((a - b) ** 2).sum()) for a, b in zip(before, model.get_weights(), strict=True))

    assert moved(0.0) == moved(0.0) > 2 * moved(10.0) > 0.0


def test_a_client_reads_a_source_and_refuses_one_that_breaks_the_contract(tmp_path):
    upload = tmp_path / "rows.csv"
    upload.write_bytes(to_csv(make_rows(days=3)))
    columns = task.columns_of(str(upload))
    assert {len(values) for values in columns.values()} == {72}
    assert columns["cnt"].tolist() == [float(row["cnt"]) for row in csv.DictReader(io.StringIO(upload.read_text()))]
    upload.write_bytes(to_csv([{**row, "hum": "7"} for row in make_rows(days=1)]))
    with pytest.raises(
        DataError, match=r"24 of 24 rows break the feature contract; the first, line 2 of .*rows\.csv: hum: 7 is above"
    ):
        task.columns_of(str(upload))


def test_the_learning_rate_falls_over_the_rounds_and_clients_that_do_not_come_are_told(agreed):
    federation = server.Federation(TRAINING, 7, clients=2, rounds=4)
    federation.task = agreed
    rates = [federation.round_config(number)["learning_rate"] for number in range(1, 5)]
    assert rates[0] == TRAINING["learning_rate"]
    assert rates[2] == pytest.approx(TRAINING["learning_rate"] / 2)
    assert rates == sorted(rates, reverse=True)
    absent = SimpleNamespace(wait_for=lambda count, timeout: False, num_available=lambda: 1)
    with pytest.raises(StageError, match="1 of 2 clients came"):
        federation.agree(absent)


@pytest.mark.slow
@pytest.mark.parametrize("module", ["client", "server"])
def test_without_flower_each_says_how_to_get_it(module, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['flwr'] = None\n", encoding="utf-8")
    more = {"client": ["--server", "127.0.0.1:1", "x.csv"], "server": ["--clients", "2", "--output", str(tmp_path)]}
    done = subprocess.run(
        [sys.executable, "-m", f"bike_pipeline.federated.{module}", *more[module]],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Flower (flwr) is not installed" in done.stderr
    assert "make flower" in done.stderr
    assert "Traceback" not in done.stderr
