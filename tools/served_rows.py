"""Rows of a file and the answers of a model server, for tools with an environment of their own."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bike_pipeline import features
from bike_pipeline.errors import DataError
from bike_pipeline.serving import records
from bike_pipeline.serving.clients import connect
from bike_pipeline.serving.clients.connection import connection_of
from bike_pipeline.settings.serving import ServingClientSettings

_BASE = Path(__file__).resolve().parents[1] / "configs" / "base.yaml"
INPUTS = (*(feature.name for feature in features.REQUIRED_INPUTS), "day")


def arguments(description: str, rows: int) -> argparse.ArgumentParser:
    """Return a parser of what every such tool takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("rows", type=Path, help="CSV of labelled hours, as of `data ingest`")
    parser.add_argument("--server", default="", help="model server, as of `predict --server`; by default the settings'")
    parser.add_argument(
        "--count", type=int, default=rows, help="rows that are shown, evenly over the file (%(default)s)"
    )
    return parser


def read(path: Path, count: int) -> tuple[dict[str, Any], Any]:
    """Return some rows of a file, evenly over it: the model's inputs by name, (rows,) each, and the label, (rows,).

    Raises:
        ModelError: the rows are none that the model could be asked for.
        DataError: a row has no label.
    """
    found = records.parse(path.read_text(encoding="utf-8"), str(path))
    places = np.unique(np.linspace(0, len(found) - 1, min(count, len(found))).round().astype(int))
    chosen = [found[place] for place in places]
    columns = records.to_columns(chosen, str(path))
    try:
        label = np.array([float(record[features.LABEL]) for record in chosen])
    except (KeyError, TypeError, ValueError):
        raise DataError(
            f"a row has no label '{features.LABEL}'", where=str(path), fix="name labelled rows, as of `data ingest`"
        ) from None
    return {name: np.asarray(columns[name]) for name in INPUTS}, label


class Served:
    """A model behind a REST address, with the settings of configs/base.yaml and the environment's credentials."""

    def __init__(self, address: str) -> None:
        # All settings together name libraries that are not here.
        serving = yaml.safe_load(_BASE.read_text(encoding="utf-8"))["serving"]
        client = ServingClientSettings.model_validate(serving["client"])
        self._connection = connection_of(client, serving["model_name"], address)

    def __call__(self, columns: dict[str, Any]) -> Any:
        """Return the answers to columns, (rows,)."""
        kinds = {"int": np.int64, "float": np.float32}
        asked = {n: np.asarray(v).astype(kinds[features.BY_NAME[n].kind]) for n, v in columns.items()}
        with connect(self._connection) as client:
            return np.asarray(client.predict(asked), np.float64)
