"""The model that serves, with its records, its rows and its answers: what notebooks and monitors look at."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from bike_pipeline import features
from bike_pipeline.errors import MetadataError
from bike_pipeline.use_cases.lineage import lineage_of

if TYPE_CHECKING:
    import pandas as pd

    from bike_pipeline.data.spans import SpanStore
    from bike_pipeline.lineage.queries.history import FoundModel, History
    from bike_pipeline.lineage.store.entities import ModelRecord, PushedModel, RunRecord
    from bike_pipeline.serving.predictor import Predictor
    from bike_pipeline.settings import Settings


class Champion:
    """The model that serves now, and all of the workspace beside it; each part is read when it is first asked for.

    Attributes:
        settings: where everything is.
        lineage: all of the metadata store, read once.
        model_id: MLMD id of the model.
        push: how it was pushed: its version, its destination and the moment.
    """

    def __init__(self, settings: Settings) -> None:
        """Look up the model that serves.

        Raises:
            MetadataError: there is no run in the workspace yet, or the metadata store cannot be opened.
            ModelError: there are runs, but no model was pushed yet.
        """
        from bike_pipeline.lineage.queries.history import History, find_model
        from bike_pipeline.lineage.records.last_run import refuse_a_lost_store

        refuse_a_lost_store(settings)
        if not settings.metadata.server_address and not settings.metadata_file.is_file():
            raise MetadataError(
                "there is no run in this workspace yet",
                where=str(settings.workspace_path),
                fix="run `make run` first, or name another workspace",
            )
        self.settings = settings
        self.lineage: History = History(lineage_of(settings))
        chosen = find_model(self.lineage, settings.serving_path, None)
        assert chosen.push is not None
        self.chosen: FoundModel = chosen
        self.model_id: int = chosen.model_id
        self.push: PushedModel = chosen.push

    @cached_property
    def store(self) -> SpanStore:
        """The span store."""
        from bike_pipeline.use_cases.data import span_store

        return span_store(self.settings)

    @cached_property
    def evidence(self) -> dict[str, Any]:
        """What speaks for the model (`lineage.queries.evidence.evidence_of`)."""
        from bike_pipeline.lineage.queries.evidence import evidence_of

        return evidence_of(self.lineage, self.model_id)

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
        """The rows that the model was made of, in time order; a DataError if the span store has them no more.

        Beside the columns of the contract: `span`, `part` ("history", "train" or "eval") and `time`, the hour, local,
        without a zone.
        """
        import pandas as pd

        window = self.evidence["data"]
        parts = []
        for entry in window:
            for split in ("train", "eval"):
                rows = self.store.read(entry["span"], entry["version"], (split,)).to_pandas()
                parts.append(rows.assign(span=entry["span"], part=split if entry is window[-1] else "history"))
        found = pd.concat(parts, ignore_index=True)
        time = pd.to_datetime(found[features.DATE]) + pd.to_timedelta(found[features.HOUR], unit="h")
        ordered: pd.DataFrame = found.assign(time=time).sort_values("time", ignore_index=True)
        return ordered

    @property
    def learnt(self) -> pd.DataFrame:
        """Those of the rows that the model was trained on."""
        return self.rows[self.rows["part"] != "eval"]

    @cached_property
    def evaluated(self) -> pd.DataFrame:
        """Those of the rows that the model was judged on, with the column `predicted`, in rentals an hour."""
        rows = self.rows[self.rows["part"] == "eval"].reset_index(drop=True)
        return rows.assign(predicted=self.predict(rows).astype("float64"))

    @cached_property
    def predictor(self) -> Predictor:
        """The model, loaded from the folder that serves (this loads TensorFlow), if its files are those pushed."""
        from bike_pipeline.log_capture import captured

        # What TensorFlow writes while it is loaded belongs to the log, not between words and pictures.
        with captured(self.settings.logs_path / "notebooks.log"):
            from bike_pipeline.model_registry import signing
            from bike_pipeline.serving.predictor import Predictor

            signing.use(self.settings)
            return Predictor(self.settings.serving_path, self.push.version)

    def predict(self, rows: pd.DataFrame) -> Any:
        """Return the model's answers in rentals an hour, shape (rows,)."""
        return self.predictor.predict({feature.name: rows[feature.name].tolist() for feature in features.MODEL_INPUTS})
