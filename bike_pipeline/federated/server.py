"""The server of federated training: `python -m bike_pipeline.federated.server --clients 4 --output FOLDER`.

Flower's own server and strategies average the weights (McMahan et al. 2017, "Communication-Efficient Learning of Deep
Networks from Decentralized Data"). Before the first round, the server asks every client for sums of its rows.
"""

from __future__ import annotations

import argparse
import math
import sys
from functools import reduce
from pathlib import Path
from typing import Any

from bike_pipeline.errors import BikePipelineError, ConfigurationError, StageError
from bike_pipeline.federated import require_flower
from bike_pipeline.federated.client import LOOPBACK
from bike_pipeline.federated.task import Task, labels_of, learnt_of, text_of

TASK_FILE, MODEL_FILE = "task.json", "model.keras"
# For the answer to one question, and for all clients to be there.
SECONDS = 600.0


class Federation:
    """What the server knows of a training: its task, as soon as all clients told their sums, and the newest weights."""

    def __init__(self, settings: dict[str, Any], seed: int, clients: int, rounds: int) -> None:
        """Have the settings' section `training`, a seed, and so many clients and rounds."""
        self.settings, self.seed, self.clients, self.rounds = settings, seed, clients, rounds
        self.task: Task | None = None
        self.weights: list[Any] = []

    def agree(self, manager: Any) -> Any:
        """Ask all clients for their sums, make the task of them, and return the first weights as Flower has them."""
        if not manager.wait_for(self.clients, SECONDS):
            raise StageError(
                f"{manager.num_available()} of {self.clients} clients came within {SECONDS:g} s",
                where="federated training",
                fix="start the others, or ask for fewer with --clients",
            )

        from flwr.common import GetPropertiesIns, ndarrays_to_parameters

        def replies(config: dict[str, Any]) -> list[str]:
            asked = GetPropertiesIns(config)
            # In one order: sums in another differ in their last digits.
            answers = [
                client.get_properties(asked, timeout=SECONDS, group_id=0).properties["sums"]
                for client in manager.all().values()
            ]
            return sorted(map(str, answers))

        learnt = reduce(lambda one, other: one.plus(other), map(learnt_of, replies({})))
        labels = reduce(lambda one, other: one.plus(other), map(labels_of, replies({"learnt": text_of(learnt)})))
        self.task = Task.of(learnt, labels, self.settings, self.seed)
        self.weights = self.task.model().get_weights()
        return ndarrays_to_parameters(self.weights)

    def round_config(self, number: int) -> dict[str, Any]:
        """Return what clients are told of a round, from 1: the learning rate falls as half a cosine over the rounds."""
        assert self.task is not None
        rate = self.settings["learning_rate"] * (1.0 + math.cos(math.pi * (number - 1) / self.rounds)) / 2.0
        return {"task": self.task.text(), "round": number, "learning_rate": rate}

    def keep(self, _: int, weights: list[Any], __: dict[str, Any]) -> None:
        """Take the weights of a round, which Flower offers for an evaluation."""
        self.weights = weights

    def write(self, folder: Path) -> None:
        """Write the task and the model into a folder, which is made."""
        from bike_pipeline.storage.atomic_files import replace_file

        assert self.task is not None
        model = self.task.model()
        model.set_weights(self.weights)
        replace_file(folder / TASK_FILE, self.task.text().encode())
        model.save(folder / MODEL_FILE)


def strategy_of(federation: Federation, proximal_mu: float = 0.0) -> Any:
    """Return Flower's FedAvg, or its FedProx with that weight, that begins with `Federation.agree`."""
    from flwr.server.strategy import FedAvg, FedProx

    base, more = (FedProx, {"proximal_mu": proximal_mu}) if proximal_mu else (FedAvg, {})

    class Agreeing(base):  # type: ignore[misc, valid-type]
        def initialize_parameters(self, client_manager: Any) -> Any:
            return federation.agree(client_manager)

        def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
            # Flower would go on with the weights of the round before.
            if failures:
                raise StageError(
                    f"{len(failures)} of {federation.clients} clients failed in round {server_round}",
                    where="federated training",
                    fix="see what they say, and start all again",
                )
            return super().aggregate_fit(server_round, results, failures)

    return Agreeing(
        fraction_evaluate=0.0,
        min_fit_clients=federation.clients,
        min_available_clients=federation.clients,
        accept_failures=False,
        on_fit_config_fn=federation.round_config,
        evaluate_fn=federation.keep,
        **more,
    )


def main() -> None:
    """Train with all clients, and write the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--address", default="127.0.0.1:8080", metavar="HOST:PORT", help="where to listen (%(default)s)"
    )
    parser.add_argument("--clients", type=int, required=True, help="how many take part, 2 at least")
    parser.add_argument("--rounds", type=int, default=12, help="(%(default)s)")
    parser.add_argument("--epochs", type=int, default=2, help="of each client in a round (%(default)s)")
    parser.add_argument("--proximal-mu", type=float, default=0.0, help="FedProx with this weight; 0 is FedAvg")
    parser.add_argument("--certificates", type=Path, nargs=3, metavar=("CA", "CERTIFICATE", "KEY"), help="PEM files")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting")
    args = parser.parse_args()
    try:
        federation = _federation(args)
        from flwr.server import ServerConfig, start_server

        start_server(
            server_address=args.address,
            config=ServerConfig(num_rounds=args.rounds, round_timeout=SECONDS),
            strategy=strategy_of(federation, args.proximal_mu),
            certificates=args.certificates and tuple(path.read_bytes() for path in args.certificates),
        )
        federation.write(args.output)
    except BikePipelineError as error:
        sys.exit(f"error: {error}")


def _federation(args: argparse.Namespace) -> Federation:
    from bike_pipeline.settings import load_settings

    require_flower()
    if args.clients < 2 or args.rounds < 1 or args.epochs < 1 or not 0 <= args.proximal_mu < math.inf:
        raise ConfigurationError(
            "it takes two clients, a round and an epoch at least, and a proximal weight that is not negative",
            where="federated training",
            fix="see --help",
        )
    if args.certificates is None and args.address.rpartition(":")[0] not in LOOPBACK:
        raise ConfigurationError(
            "sums and weights would travel unencrypted", where=args.address, fix="name --certificates"
        )
    for path in args.certificates or ():
        if not path.is_file():
            raise ConfigurationError("no such file", where=str(path), fix="check the path")
    settings = load_settings(assignments=("training.architecture=deep", *args.set))
    if settings.training.architecture not in ("deep", "linear"):
        raise ConfigurationError(
            f"the weights of '{settings.training.architecture}' cannot be averaged: trees have none",
            where="training.architecture",
            fix="set it to deep or linear",
        )
    if settings.training.target != "rentals":
        raise ConfigurationError(
            f"clients learn rentals, and no target '{settings.training.target}': its threshold would be each one's own",
            where="training.target",
            fix="set it to rentals",
        )
    training = {**settings.training.model_dump(mode="json"), "epochs": args.epochs}
    return Federation(training, settings.seed, args.clients, args.rounds)


if __name__ == "__main__":
    main()
