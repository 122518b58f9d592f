"""Artifacts of our own.

All their properties are custom ones: Kubeflow's compiler knows the declared properties of TFX's own types only.
"""

from __future__ import annotations

from tfx.types.artifact import Artifact


class DataGateReport(Artifact):
    """What the gate found: `report.json` with every finding and its severity."""

    TYPE_NAME = "bike.DataGateReport"


class ModelCard(Artifact):
    """A model's card: `model_card.json`, `.md` and `.html`."""

    TYPE_NAME = "bike.ModelCard"


class Exports(Artifact):
    """A model in other formats: a folder for each, `parity.json` and `golden.json`."""

    TYPE_NAME = "bike.Exports"
