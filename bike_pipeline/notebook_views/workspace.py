"""The workspace that a notebook looks at, opened once: its records, its rows and the model that serves."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from bike_pipeline import features
from bike_pipeline.data.spans import SpanStore
from bike_pipeline.errors import MetadataError
from bike_pipeline.lineage.queries.evidence import evidence_of
from bike_pipeline.lineage.queries.history import History
from bike_pipeline.lineage.queries.model_lookup import FoundModel, find_model
from bike_pipeline.lineage.store.entities import ModelRecord, RunRecord
from bike_pipeline.lineage.store.lost_store import refuse_a_lost_store
from bike_pipeline.lineage.store.metadata_store import Lineage
from bike_pipeline.notebook_views.shown import Html, table
from bike_pipeline.settings import load_settings
from bike_pipeline.settings.tree import PROJECT_ROOT, Settings
from bike_pipeline.use_cases.metadata import lineage_of

if TYPE_CHECKING:
    from bike_pipeline.serving.predictor import Predictor

WORKSPACE_VARIABLE = "BIKE_PIPELINE_WORKSPACE"
CONFIG_VARIABLE = "BIKE_PIPELINE_CONFIG"
DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
# Stored value -> physical value, from the units of the feature contract: value * scale + offset.
PHYSICAL = {
    "temp": (47.0, -8.0, "temperature, °C"),
    "atemp": (66.0, -16.0, "temperature as it feels, °C"),
    "hum": (100.0, 0.0, "relative humidity, %"),
    "windspeed": (67.0, 0.0, "wind speed, km/h"),
}


def physical(name: str, value: Any) -> Any:
    """Return a stored weather value in its physical unit."""
    scale, offset, _ = PHYSICAL[name]
    return value * scale + offset


@dataclass(frozen=True)
class Workspace:
    """A workspace with a model that serves.

    Attributes:
        settings: where everything is.
        lineage: the metadata store.
        history: all of it, read once.
        chosen: the model that serves now.
    """

    settings: Settings
    lineage: Lineage
    history: History
    chosen: FoundModel

    @cached_property
    def store(self) -> SpanStore:
        """The rows."""
        return SpanStore(self.settings.store_uri)

    @cached_property
    def evidence(self) -> dict[str, Any]:
        """What speaks for the model that serves (`lineage.evidence.evidence_of`)."""
        return evidence_of(self.lineage, self.chosen.model_id)

    @cached_property
    def models(self) -> list[ModelRecord]:
        """Every trained model, oldest first."""
        return self.lineage.models(self.settings.serving_path)

    @cached_property
    def runs(self) -> list[RunRecord]:
        """Every run, oldest first."""
        return self.lineage.runs()

    @cached_property
    def rows(self) -> pd.DataFrame:
        """The rows that the serving model was made of, in time order.

        Beside the columns of the contract: `span`, `part` ("history", "train" or "eval") and `time`.

        Raises:
            DataError: they are not in the span store any more, or were changed.
        """
        window = self.evidence["data"]
        parts = []
        for entry in window:
            for split in ("train", "eval"):
                rows = self.store.read(entry["span"], entry["version"], (split,)).to_pandas()
                parts.append(rows.assign(span=entry["span"], part=split if entry is window[-1] else "history"))
        return with_time(pd.concat(parts, ignore_index=True)).sort_values("time", ignore_index=True)

    @cached_property
    def predictor(self) -> Predictor:
        """The served model, loaded from the folder that TF Serving reads (this loads TensorFlow).

        Raises:
            ModelError: its files are not those that were pushed.
        """
        from bike_pipeline.log_capture import captured

        assert self.chosen.push is not None
        # What TensorFlow says while it is loaded belongs to the log, not between words and pictures.
        with captured(self.settings.logs_path / "notebooks.log"):
            from bike_pipeline.model_registry import signing
            from bike_pipeline.serving.predictor import Predictor

            signing.use(self.settings)
            return Predictor(self.settings.serving_path, self.chosen.push.version)

    def predict(self, rows: pd.DataFrame) -> Any:
        """Return the served model's answers in rentals an hour, shape (rows,)."""
        return self.predictor.predict({feature.name: rows[feature.name].tolist() for feature in features.MODEL_INPUTS})

    @cached_property
    def evaluated(self) -> pd.DataFrame:
        """The rows that the serving model was judged on, with the column `predicted`, in rentals an hour."""
        rows = self.rows[self.rows["part"] == "eval"].reset_index(drop=True)
        return rows.assign(predicted=self.predict(rows).astype("float64"))

    def summary(self) -> Html:
        """Return what is here, in a few lines."""
        push = self.chosen.push
        assert push is not None
        spans = ", ".join(f"{e['span']} version {e['version']}" for e in self.evidence["data"])
        return table(
            ("what", "value"),
            [
                ("runs on record", str(len(self.runs))),
                ("models trained", str(len(self.models))),
                ("model that serves", f"model {self.chosen.model_id}, version {push.version}"),
                ("pushed", f"{push.pushed_at:%Y-%m-%d %H:%M} UTC"),
                ("made of span", spans),
            ],
        )


def with_time(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows with the column `time`: their hour, local, without a zone."""
    day = pd.to_datetime(rows[features.DATE])
    return rows.assign(time=day + pd.to_timedelta(rows[features.HOUR], unit="h"))


def open_workspace() -> Workspace:
    """Open the workspace named by BIKE_PIPELINE_WORKSPACE, or that of the settings, below the project's folder.

    BIKE_PIPELINE_CONFIG may name an overlay of the settings, as `--config` does.

    Raises:
        ConfigurationError: the overlay is wrong.
        MetadataError: there is no run there yet, or the metadata store cannot be opened.
        ModelError: there are runs, but no model was pushed yet.
    """
    settings = load_settings(os.environ.get(CONFIG_VARIABLE) or None)
    named = os.environ.get(WORKSPACE_VARIABLE)
    # A kernel's folder is that of its notebook.
    folder = Path(named).expanduser() if named else PROJECT_ROOT / settings.workspace.expanduser()
    settings = settings.model_copy(update={"workspace": folder.absolute()})
    refuse_a_lost_store(settings)
    if not settings.metadata.server_address and not settings.metadata_file.is_file():
        raise MetadataError(
            "there is no run in this workspace yet",
            where=str(settings.workspace_path),
            fix=f"run `make run` first, or name another workspace in the variable {WORKSPACE_VARIABLE}",
        )
    lineage = lineage_of(settings)
    return Workspace(settings, lineage, History(lineage), find_model(lineage, settings.serving_path, None))
