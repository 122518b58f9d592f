"""The served model in LIT, the Learning Interpretability Tool: `make lit ARGS="rentals.csv --server 127.0.0.1:8501"`.

LIT asks the model server for whatever is edited in it. It needs numpy 1, and so an environment of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lit_nlp
import numpy as np
import served_rows
from lit_nlp import dev_server
from lit_nlp.api import dataset as lit_dataset
from lit_nlp.api import model as lit_model
from lit_nlp.api import types as lit_types

from bike_pipeline import features
from bike_pipeline.errors import BikePipelineError

MODEL, DATA, ANSWER = "served", "hours", "predicted"
# Its wheel brings the page, which the server does not find by itself.
CLIENT = Path(lit_nlp.__file__).parent / "client" / "build" / "default"


def spec() -> dict[str, Any]:
    """Return what LIT knows of the inputs: numbers with the range of the contract."""
    found = {}
    for name in served_rows.INPUTS:
        feature = features.BY_NAME[name]
        high = features.MOST_YEARS if feature.maximum is None else feature.maximum
        kind = lit_types.Integer if feature.kind == "int" else lit_types.Scalar
        step = 1 if feature.kind == "int" else 0.01
        found[name] = kind(min_val=feature.minimum or 0, max_val=high, step=step)
    return found


class Hours(lit_dataset.Dataset):
    """Labelled hours of a file."""

    def __init__(self, path: Path, count: int) -> None:
        columns, label = served_rows.read(path, count)
        self._examples = [
            {**{name: values[row].item() for name, values in columns.items()}, features.LABEL: float(label[row])}
            for row in range(len(label))
        ]

    @classmethod
    def init_spec(cls) -> None:
        """Return nothing: the page makes no other one."""

    def spec(self) -> dict[str, Any]:
        return {**spec(), features.LABEL: lit_types.Scalar(min_val=0, max_val=2000, step=1)}


class ServedModel(lit_model.Model):
    """The model behind an address."""

    def __init__(self, address: str) -> None:
        self._ask = served_rows.Served(address)

    @classmethod
    def init_spec(cls) -> None:
        """Return nothing: the page makes no other one."""

    def input_spec(self) -> dict[str, Any]:
        return spec()

    def output_spec(self) -> dict[str, Any]:
        return {ANSWER: lit_types.RegressionScore(parent=features.LABEL, min_val=0, max_val=2000)}

    def predict(self, inputs: Iterable[dict[str, Any]], **_: Any) -> list[dict[str, float]]:
        """Return the served answers to rows."""
        rows = list(inputs)
        columns = {name: np.array([row[name] for row in rows]) for name in served_rows.INPUTS}
        return [{ANSWER: float(answer)} for answer in self._ask(columns)] if rows else []


def main() -> None:
    """Serve LIT until it is stopped."""
    parser = served_rows.arguments(str(__doc__), 500)
    parser.add_argument("--host", default="127.0.0.1", help="where LIT listens (%(default)s)")
    parser.add_argument("--port", type=int, default=5432, help="its port (%(default)s)")
    args = parser.parse_args()
    try:
        models, data = {MODEL: ServedModel(args.server)}, {DATA: Hours(args.rows, args.count)}
        # Fails here, and not in the page, where the server does not answer.
        list(models[MODEL].predict(data[DATA].examples[:1]))
    except BikePipelineError as error:
        sys.exit(f"error: {error}")
    dev_server.Server(models, data, host=args.host, port=args.port, client_root=str(CLIENT)).serve()


if __name__ == "__main__":
    main()
