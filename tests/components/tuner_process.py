"""A search in a process of its own, which a test may kill; its one argument is that of `search`, as JSON."""

from __future__ import annotations

import json
import sys
from typing import Any


def search(examples: str, schema: str, folder: str, properties: dict[str, Any]) -> Any:
    """Run the Tuner on artifacts' folders; outputs lie in `folder`. Return what it reported and its outputs."""
    from tfx.types import standard_artifacts

    from bike_pipeline import progress
    from bike_pipeline.components.tuner import TunerExecutor

    given = standard_artifacts.Examples(), standard_artifacts.Schema()
    given[0].uri, given[1].uri = examples, schema
    made = standard_artifacts.HyperParameters(), standard_artifacts.TunerResults()
    made[0].uri, made[1].uri = f"{folder}/best_hyperparameters/1", f"{folder}/tuner_results/1"
    said: list[str] = []
    with progress.listening(lambda _, text: said.append(text)):
        TunerExecutor().Do(
            {"examples": [given[0]], "schema": [given[1]]},
            {"best_hyperparameters": [made[0]], "tuner_results": [made[1]]},
            properties,
        )
    return said, made


if __name__ == "__main__":
    search(**json.loads(sys.argv[1]))
