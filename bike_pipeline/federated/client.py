"""A client of federated training: `python -m bike_pipeline.federated.client --server HOST:PORT SOURCE`.

Its rows stay in this process. It tells the server sums of them and, each round, the weights that they lead to.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import keras
import numpy.typing as npt
from keras import ops

from bike_pipeline.errors import BikePipelineError, ConfigurationError
from bike_pipeline.federated import require_flower
from bike_pipeline.federated.task import LabelSums, Task, columns_of, learnt_of, text_of
from bike_pipeline.modeling import architectures, training
from bike_pipeline.modeling.distribution import Loss
from bike_pipeline.modeling.preprocessing import LearntSums
from bike_pipeline.modeling.rows import Columns

# How long a server is waited for.
SECONDS = 600.0
LOOPBACK = ("127.0.0.1", "[::1]", "localhost")


def flower_client(columns: Columns) -> Any:
    """Return Flower's client of raw columns with the labels, which it does not hand out."""
    from flwr.client import NumPyClient

    class BikeClient(NumPyClient):
        task: Task | None = None

        def get_properties(self, config: dict[str, Any]) -> dict[str, Any]:
            learnt = config.get("learnt")
            told = LearntSums.of(columns) if learnt is None else LabelSums.of(columns, learnt_of(learnt))
            return {"sums": text_of(told)}

        def fit(self, parameters: list[npt.NDArray[Any]], config: dict[str, Any]) -> tuple[Any, int, dict[str, Any]]:
            if self.task is None:
                self.task = Task.from_text(config["task"])
                self.model = self.task.model()
                self.inputs, self.labels = self.task.rows(columns)
            self.model.set_weights(parameters)
            trained = architectures.with_heads(self.model)
            loss = near(trained, self.task.loss(), config.get("proximal_mu", 0.0))
            how = {**self.task.settings, "learning_rate": config["learning_rate"]}
            seed = self.task.seed + config["round"]
            # The server averages; a moving average over the few steps of a round would stay where the round began.
            losses = training.fit(trained, self.inputs, self.labels, how, seed, loss, ema_momentum=0.0)
            return self.model.get_weights(), len(self.labels), {"loss": losses[-1]}

    return BikeClient().to_client()


def near(model: keras.Model, loss: Loss, weight: float) -> Loss:
    """Return a loss that keeps a model near to what it is now by weight / 2 · ‖w - w₀‖² (FedProx, Li et al. 2020)."""
    if not weight:
        return loss
    start = [(variable, ops.copy(variable.value)) for variable in model.trainable_variables]

    def proximal(target: Any, answer: Any) -> Any:
        return loss(target, answer) + weight / 2 * sum(ops.sum(ops.square(now - then)) for now, then in start)

    return proximal


def main() -> None:
    """Take part until the server ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", help="rows with labels: whatever `bike-pipeline data ingest` reads but a database")
    parser.add_argument("--server", required=True, metavar="HOST:PORT")
    parser.add_argument("--root-certificate", type=Path, help="PEM file that the server's certificate is checked by")
    args = parser.parse_args()
    try:
        require_flower()
        if args.root_certificate is None and args.server.rpartition(":")[0] not in LOOPBACK:
            raise ConfigurationError(
                "sums and weights would travel unencrypted", where=args.server, fix="name --root-certificate"
            )
        if args.root_certificate is not None and not args.root_certificate.is_file():
            raise ConfigurationError("no such file", where=str(args.root_certificate), fix="check the path")
        columns = columns_of(args.source)
    except BikePipelineError as error:
        sys.exit(f"error: {error}")
    from flwr.client import start_client

    start_client(
        server_address=args.server,
        client=flower_client(columns),
        root_certificates=args.root_certificate and args.root_certificate.read_bytes(),
        insecure=args.root_certificate is None,
        max_wait_time=SECONDS,
    )


if __name__ == "__main__":
    main()
