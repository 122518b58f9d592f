"""Bike rentals an hour, predicted on this machine. Needs ai-edge-litert and numpy, nothing else.

`python predictor.py < records.json` reads one JSON record or a list of them, and prints one number a line; in a
program: `Predictor().predict({"hr": [8, 17], …})`. feature_contract.json says what each value means.
"""

import json
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
        self.defaults = {entry["name"]: entry["default"] for entry in self.contract["inputs"] if "default" in entry}
        self._model = Interpreter(str(folder / manifest["model"]["file"]), num_threads=1)
        self._run = self._model.get_signature_runner(self.contract["signature"])

    def predict(self, columns: dict[str, object]) -> np.ndarray:
        """Return the rentals of each row, NaN where its weather is not finite; hr=8.5 is a ValueError.

        One sequence an input; those with a default in the contract may be left out.
        """
        rows = max((np.asarray(values).size for values in columns.values()), default=0)
        columns = {**{name: np.full(rows, value) for name, value in self.defaults.items()}, **columns}
        arrays = {}
        with np.errstate(invalid="ignore", over="ignore"):
            for name, dtype in self.dtypes.items():
                given = np.atleast_1d(np.asarray(columns.get(name)))
                arrays[name] = given.astype(dtype) if given.dtype.kind in "biuf" else np.zeros(0)
                if given.shape != (len(arrays[name]),) or (dtype.kind == "i" and (arrays[name] != given).any()):
                    raise ValueError(f"{name} is {columns.get(name)!r}; see feature_contract.json")
        counts = {name: len(array) for name, array in arrays.items()}
        if len(set(counts.values())) > 1:
            raise ValueError(f"the inputs differ in their number of rows: {counts}")
        answers = self._run(**arrays) if rows else {}
        return np.asarray(answers.get(self.contract["output"]["name"], []), np.float32)

    def columns_of(self, records: list[dict[str, float]]) -> dict[str, object]:
        """Return records as columns; a value that is missing, no number or no whole one is a ValueError."""
        for number, record in enumerate(records, 1):
            for name, dtype in self.dtypes.items():
                value = record.get(name, self.defaults.get(name))
                if not isinstance(value, (int, float)) or not abs(value) < np.inf or (dtype.kind == "i" and value % 1):
                    raise ValueError(f"record {number}: {name} is {value!r}; see feature_contract.json")
        return {name: [{**self.defaults, **record}[name] for record in records] for name in self.dtypes}


if __name__ == "__main__":
    model = Predictor()
    try:
        read = json.loads(sys.stdin.read().removeprefix("\ufeff"))
        answered = model.predict(model.columns_of(read if isinstance(read, list) else [read]))
    except (ValueError, AttributeError) as error:
        sys.exit(f"error: {error}")
    for rentals in answered:
        print(f"{rentals:.2f}")
