"""Bike rentals an hour, predicted on this machine. Needs ai-edge-litert and numpy, nothing else.

`python predictor.py < records.json` reads one JSON record or a list of them, and prints one number a line; in a
program: `Predictor().predict({"hr": [8, 17], …})`. feature_contract.json says what each value means.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter


class Predictor:
    """The bundle's model, on one thread."""

    def __init__(self, folder: Path = Path(__file__).parent) -> None:
        """Load the model that the manifest in `folder` names."""
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        self.contract = json.loads((folder / "feature_contract.json").read_text(encoding="utf-8"))
        self.dtypes = {entry["name"]: np.dtype(entry["dtype"]) for entry in self.contract["inputs"]}
        self._model = Interpreter(str(folder / manifest["model"]["file"]), num_threads=1)
        self._run = self._model.get_signature_runner(self.contract["signature"])

    def predict(self, columns: dict[str, object]) -> np.ndarray:
        """Return the rentals of any number of hours: one sequence of the same length for each input."""
        arrays = {name: np.atleast_1d(np.asarray(columns[name], dtype)) for name, dtype in self.dtypes.items()}
        return np.asarray(self._run(**arrays)[self.contract["output"]["name"]])

    def columns_of(self, records: list[dict[str, float]]) -> dict[str, object]:
        """Return records as columns; a value that is missing, no number or no whole one is a ValueError."""
        for number, record in enumerate(records, 1):
            for name, dtype in self.dtypes.items():
                value = record.get(name)
                if isinstance(value, (int, float)) and math.isfinite(value) and not (dtype.kind == "i" and value % 1):
                    continue
                raise ValueError(f"record {number}: {name} is {value!r}; see feature_contract.json")
        return {name: [record[name] for record in records] for name in self.dtypes}


if __name__ == "__main__":
    model = Predictor()
    try:
        read = json.load(sys.stdin)
        columns = model.columns_of(read if isinstance(read, list) else [read])
    except (ValueError, AttributeError) as error:
        sys.exit(f"error: {error}")
    for rentals in model.predict(columns):
        print(f"{rentals:.2f}")
