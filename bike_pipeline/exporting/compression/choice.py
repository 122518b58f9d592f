"""From the blessed model to the one that goes to the edge: make, measure, choose, and write down why."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bike_pipeline.errors import ExportError
from bike_pipeline.exporting.compression.candidates import Trying, measure, write_models
from bike_pipeline.exporting.compression.material import Material
from bike_pipeline.exporting.compression.methods import PLAIN
from bike_pipeline.exporting.compression.rule import Choice, decide
from bike_pipeline.exporting.formats.base import Columns
from bike_pipeline.modeling.rows import count
from bike_pipeline.settings.exporting import CompressionSettings, Method
from bike_pipeline.storage.plain_json import finite

TABLE_FILE = "compression.json"


def choose(methods: Sequence[Method], material: Material, calibration: Columns, trying: Trying, folder: Path) -> Choice:
    """Make every candidate in `folder`, measure all of them on the eval split, and apply the rule.

    `folder` then holds `<method>/model` (a SavedModel), `<method>/<format>` and `compression.json` (`as_json`).
    """
    ordered: tuple[Method, ...] = (PLAIN, *(method for method in methods if method != PLAIN))
    models = write_models(ordered, material, trying, folder)
    choice = decide(measure(models, calibration, material, trying, folder), trying.compression)
    rows = {"train": count(material.train), "eval": count(material.evaluated)}
    content = as_json(choice, trying.compression, rows, trying.seed)
    (folder / TABLE_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return choice


def refused(choice: Choice) -> ExportError:
    """Return the error that says why no candidate won: the one with the smallest loss, and what keeps it out."""
    nearest = min(choice.candidates, key=lambda c: math.inf if c.mae_increase is None else c.mae_increase)
    return ExportError(
        f"no candidate is within the limits; nearest is {nearest.name}: {choice.reasons[nearest.name]}",
        where="exporting.compression",
        fix="try other methods or formats, or raise max_mae_increase or max_slice_mae_increase",
    )


def as_json(choice: Choice, settings: CompressionSettings, rows: dict[str, int], seed: int) -> dict[str, Any]:
    """Return what was measured and decided as plain values; None for what is not finite."""
    table = [{**asdict(c), "reason": choice.reasons.get(c.name, "")} for c in choice.candidates]
    return {
        "winner": None if choice.winner is None else {"method": choice.winner.method, "format": choice.winner.format},
        "rule": settings.model_dump(mode="json"),
        "rows": rows,
        "seed": seed,
        "candidates": finite(table),
    }
