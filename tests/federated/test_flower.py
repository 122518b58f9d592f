"""A small federation for real: Flower's server and two clients, processes of their own on loopback.

The tests are skipped, and say so, if Flower's environment is not there; if `FEDERATED` names it, it must be.
"""

from __future__ import annotations

import os
import subprocess
from functools import reduce
from pathlib import Path

import keras
import numpy as np
import pytest

from benchmarks import federated
from bike_pipeline.data.embedded_dataset import embedded_bytes
from bike_pipeline.federated import client, server
from bike_pipeline.federated.task import LabelSums, Task, columns_of
from bike_pipeline.modeling import architectures, training
from bike_pipeline.modeling.preprocessing import LearntSums
from tests.conftest import ROOT
from tests.database_servers import free_port
from tests.rollout.gateway.authorities import Authority

PLACE = Path(os.environ.get("FEDERATED", ROOT / ".federated"))
SMALL = ("training.hidden_units=[8]", "training.embedding_dimensions=3", "training.batch_size=64")
OPTIONS = ["--rounds", "2", "--epochs", "1", *(word for value in SMALL for word in ("--set", value))]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def python() -> str:
    """The interpreter that has Flower."""
    path = PLACE.absolute() / "bin" / "python"
    if not path.exists() and "FEDERATED" not in os.environ:
        pytest.skip("Flower's environment .federated is not there: run `make test-federated`")
    return str(path)


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Hours of clear weather and of rain, of eight months: enough for a growth."""
    table = federated.read(embedded_bytes())
    places = np.arange(0, 5_600, 8)
    rows = federated.client_rows(table, places, "weathersit")
    chosen = {name: rows[name] for name in ("clear", "rain or snow")}
    return list(federated.write_uploads(embedded_bytes(), chosen, tmp_path_factory.mktemp("uploads")).values())


def averaged(uploads: list[Path], told: Task, weight: float) -> list[np.ndarray]:
    """Return the weights of two rounds without Flower: each client's, averaged by its rows."""
    columns = [columns_of(str(upload)) for upload in uploads]
    learnt = reduce(LearntSums.plus, map(LearntSums.of, columns))
    labels = reduce(LabelSums.plus, [LabelSums.of(part, learnt) for part in columns])
    task = Task.of(learnt, labels, told.settings, told.seed)
    # Dropout goes on in each client by itself.
    models = [task.model() for _ in columns]
    weights = models[0].get_weights()
    for number, share in ((1, 1.0), (2, 0.5)):
        own, counts = [], []
        for model, part in zip(models, columns, strict=True):
            model.set_weights(weights)
            trained = architectures.with_heads(model)
            how = {**task.settings, "learning_rate": task.settings["learning_rate"] * share}
            loss = client.near(trained, task.loss(), weight)
            training.fit(trained, *task.rows(part), how, task.seed + number, loss, ema_momentum=0.0)
            own.append(model.get_weights())
            counts.append(len(part["hr"]))
        weights = [np.average(values, axis=0, weights=counts) for values in zip(*own, strict=True)]
    return weights


@pytest.mark.parametrize("proximal", [0.0, 1.0], ids=["FedAvg", "FedProx over TLS"])
def test_two_rounds_of_two_clients_come_to_the_average_of_what_each_learns(
    python: str, uploads: list[Path], tmp_path: Path, proximal: float
) -> None:
    more, of_clients = [], []
    if proximal:
        authority = Authority(tmp_path)
        own = authority.sign("server")
        certificates = [authority.certificate, own.certificate, own.key]
        more = ["--proximal-mu", str(proximal), "--certificates", *map(str, certificates)]
        of_clients = ["--root-certificate", str(authority.certificate)]
    output = federated.federate(python, uploads, tmp_path, free_port(), [*OPTIONS, *more], of_clients)
    task = Task.from_text((output / server.TASK_FILE).read_text(encoding="utf-8"))
    assert task.learnt.rows == sum(len(upload.read_text().splitlines()) - 1 for upload in uploads)
    model = keras.saving.load_model(output / server.MODEL_FILE, compile=False)
    expected = averaged(uploads, task, proximal)
    assert len(expected) == len(model.get_weights()) > 5
    for found, own in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(found, own, rtol=1e-3, atol=1e-5)
    moved = [float(np.abs(a - b).max()) for a, b in zip(model.get_weights(), task.model().get_weights(), strict=True)]
    assert max(moved) > 0.01
    answers = task.answers(model, columns_of(str(uploads[0])))
    assert np.isfinite(answers).all()
    assert len(set(answers.round(3))) > 50


def test_a_client_with_a_broken_source_ends_the_federation_with_its_words(
    python: str, uploads: list[Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.csv"
    lines = uploads[1].read_text().splitlines()
    broken.write_text("\n".join([lines[0], lines[1].replace(",", ";", 1)]) + "\n")
    with pytest.raises(
        SystemExit, match=r"client --server .* failed(.|\n)*it has a header and no rows|no row has as many"
    ):
        federated.federate(python, [uploads[0], broken], tmp_path, free_port(), OPTIONS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["client", "--server", "models.example.org:8080", "x.csv"], "would travel unencrypted. Name --root-cert"),
        (["client", "--server", "127.0.0.1:1", "no-such.csv"], "no such file or folder"),
        (
            ["server", "--clients", "2", "--address", "0.0.0.0:8080", "--output", "o"],
            "unencrypted. Name --certificates",
        ),
        (
            ["server", "--clients", "2", "--certificates", "a.pem", "b.pem", "c.pem", "--output", "o"],
            "a.pem: no such file",
        ),
        (["server", "--clients", "1", "--output", "o"], "it takes two clients"),
        (["server", "--clients", "2", "--output", "o", "--set", "training.architecture=trees"], "trees have none"),
        (["server", "--clients", "2", "--output", "o", "--set", "training.target=busy"], "no target 'busy'"),
    ],
)
def test_what_cannot_be_is_one_line(python: str, arguments: list[str], said: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [python, "-m", f"bike_pipeline.federated.{arguments[0]}", *arguments[1:]],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
