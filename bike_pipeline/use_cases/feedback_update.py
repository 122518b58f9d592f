"""Labels that arrived after training, as a new version of the model that serves."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bike_pipeline import features
from bike_pipeline.errors import ExportError, ModelError
from bike_pipeline.use_cases.feedback import ServedFeedback, first_untrained_hour, served
from bike_pipeline.use_cases.lineage import lineage_of

if TYPE_CHECKING:
    import pyarrow as pa

    from bike_pipeline.lineage.store.metadata_store import Lineage
    from bike_pipeline.modeling.feedback import Labels
    from bike_pipeline.modeling.feedback_record import Feedback
    from bike_pipeline.modeling.label_update import LabelCounts, OutlierDay
    from bike_pipeline.settings import Settings

# What a run trains beside the model, and no update can: see docs/compression.md.
_TRAINED_FORMATS = ("compressed",)


@dataclass(frozen=True)
class FeedbackUpdate:
    """What an upload of labels came to.

    Attributes:
        version: the version that it made; None if nothing in it was new.
        before: the version that served.
        counts: how many hours of the upload did what.
        outlier_days: days of the upload that count only up to the bound of a day.
        first: the first hour of all labels that the model knows then, local, ISO 8601.
        last: the last of them.
        factors: the smallest and the largest of what answers of new hours are multiplied with.
        bounded_groups: groups of hours whose level is at its bound.
        left_out: formats of the version before that the new one has not, since a run trains them.
        waiting: versions of the same model, with other labels, that nobody promoted; the new one knows none of these.
        not_promoted: why the new version does not serve; "" if it does.
    """

    version: int | None
    before: int
    counts: LabelCounts
    outlier_days: tuple[OutlierDay, ...] = ()
    first: str = ""
    last: str = ""
    factors: tuple[float, float] = (1.0, 1.0)
    bounded_groups: int = 0
    left_out: tuple[str, ...] = ()
    waiting: tuple[int, ...] = ()
    not_promoted: str = ""


def update(settings: Settings, source: Path | str, query: str | None = None, *, wait: bool = False) -> FeedbackUpdate:
    """Let labels that arrived after training correct the level of the model that serves, as a new version of it.

    The source is one of rows, as of `use_cases.data.ingest`, in any order; each hour with its label. Hours that are
    known already change nothing, other labels of known hours correct them. If promotion is automatic, the new version
    is validated and serves. Whatever the call was killed at, it can be repeated. A run here is a BusyError, or with
    `wait` waited for.

    Raises:
        DataError: a row breaks the feature contract, or an hour stands there with two labels; nothing was changed.
        ModelError: nothing serves, or a model that an earlier release trained, which takes no labels.
        ExportError: a format of the version that serves cannot be made of the new one; nothing was changed.
        BusyError: a run is working in this workspace, or somebody changes what is promoted.
        ServerError: the new version does not pass its validation, or a server does not follow.
    """
    from bike_pipeline.data.labels import read_labels
    from bike_pipeline.lean_imports import lean_imports
    from bike_pipeline.storage.atomic_files import workspace_lock

    # A store that is not there must not make a workspace.
    lineage = lineage_of(settings)
    table, origin = read_labels(str(source), query, datetime.now(UTC).replace(tzinfo=None))
    with workspace_lock(settings.workspace_path, wait), lean_imports(google_cloud=True):
        return _Update(settings, lineage, served(settings)).run(table, origin.location)


class _Update:
    """An update of the version that serves; every step leaves what serves as it was, until the last."""

    def __init__(self, settings: Settings, lineage: Lineage, serving: ServedFeedback) -> None:
        self._settings, self._lineage, self._serving = settings, lineage, serving
        self._model_id = int(serving.record["model_id"])
        names = serving.record.get("exports", [])
        self._formats = [name for name in names if name not in _TRAINED_FORMATS]
        self._left_out = tuple(name for name in names if name in _TRAINED_FORMATS)

    def run(self, table: pa.Table, source: str) -> FeedbackUpdate:
        """Return what rows of `data.labels.read_labels` come to."""
        import numpy as np

        from bike_pipeline.lineage.store.feedback_updates import record_missing
        from bike_pipeline.model_registry import layout
        from bike_pipeline.modeling import feedback, label_update
        from bike_pipeline.rollout import promotion

        serving, registry = self._serving, self._serving.registry
        # What another process pushed and was killed before it was recorded.
        record_missing(self._lineage, registry)
        columns = self._columns(table)
        upload = feedback.Labels.of(columns, feedback.hours_of(columns), np.zeros(table.num_rows))
        new, counts = label_update.changes(
            serving.feedback.labels, upload, first_untrained_hour(self._settings, self._lineage, self._model_id)
        )
        if not len(new.hours):
            return FeedbackUpdate(None, serving.version, counts)
        with tempfile.TemporaryDirectory(prefix="bike-feedback-") as aside:
            model = Path(aside) / "model"
            layout.copy_model(serving.folder, model)
            expected = self._expected(model, columns, upload)
            after = serving.feedback.updated(replace(upload, expected=expected)[np.isin(upload.hours, new.hours)])
            self._write(model, after)
            about = self._record(after, upload, {"source": source, **asdict(counts)}, table)
            registry.begin()
            version = self._same(about) or self._pushed(model, about)
        record_missing(self._lineage, registry)
        last = label_update.moment(after.labels.hours[-1])
        # The model is the one that serves; what its labels correct must not wait for a rollout.
        targets = promotion.RolloutTargets.of(self._settings).model_copy(update={"rollout": ""})
        not_promoted = promotion.after_push(
            registry.base_path, version, targets, f"labels to {last.replace('T', ' ')} came in"
        )
        return FeedbackUpdate(
            version,
            serving.version,
            counts,
            tuple(label_update.outlier_days(after, new.hours)),
            label_update.moment(after.labels.hours[0]),
            last,
            tuple(about["factors"]),
            label_update.bounded_groups(after),
            self._left_out,
            self._waiting(version),
            not_promoted,
        )

    def _columns(self, table: pa.Table) -> dict[str, Any]:
        """Return the model's inputs and the label of rows, with the weather before them as far as the store has it."""
        from bike_pipeline.data.past_weather import with_optional_inputs
        from bike_pipeline.data.spans import SpanStore

        store = SpanStore(self._settings.store_uri)
        earlier = [store.read(found.span, found.version) for found in (store.latest(),)] if store.spans() else []
        rows = with_optional_inputs(table, *earlier)
        return {
            name: rows.column(name).to_numpy() for name in (*[f.name for f in features.MODEL_INPUTS], features.LABEL)
        }

    def _expected(self, model: Path, columns: Mapping[str, Any], upload: Labels) -> Any:
        """Return what the model in a folder, which loses its own state for it, expects of an upload, (rows,)."""
        import numpy as np

        from bike_pipeline.modeling import feedback, label_update, served_state
        from bike_pipeline.modeling.loaded_model import LoadedModel

        served_state.replace(str(model), feedback.FeedbackState.neutral(self._serving.feedback.settings))
        expected = LoadedModel(model).predict(columns).astype(np.float64)
        if len(broken := np.flatnonzero(~np.isfinite(expected))):
            raise ModelError(
                f"the model has no finite answer for {label_update.moment(upload.hours[broken[0]])}",
                where=self._serving.registry.uri(self._serving.version),
                fix="train again: `bike-pipeline run --no-cache`",
            )
        return expected

    def _write(self, model: Path, after: Feedback) -> None:
        from bike_pipeline.model_registry import layout
        from bike_pipeline.modeling import served_state
        from bike_pipeline.modeling.feedback_record import FEEDBACK_FILE

        served_state.replace(str(model), after.state)
        (model / layout.EXTRA_FOLDER / FEEDBACK_FILE).write_text(after.to_json(), encoding="utf-8")

    def _record(self, after: Feedback, upload: Labels, about: Mapping[str, Any], table: pa.Table) -> dict[str, Any]:
        """Return what stands of the new version in its push record, its evidence and ML Metadata, as plain values."""
        import numpy as np

        from bike_pipeline.data.rows import content_sha256
        from bike_pipeline.modeling.label_update import moment

        def window(labels: Labels) -> dict[str, Any]:
            hours = labels.hours
            return {"rows": len(hours), "first": moment(hours[0]), "last": moment(hours[-1])}

        labels, factors = after.labels, np.exp(after.state.levels)
        known = hashlib.sha256(labels.hours.tobytes() + labels.rentals.tobytes()).hexdigest()
        return {
            "of": self._serving.version,
            "updates": after.updates,
            "labels": {**window(labels), "sha256": known},
            "factors": [float(factors.min()), float(factors.max())],
            "upload": {**about, **window(upload), "sha256": content_sha256(table)},
        }

    def _same(self, about: Mapping[str, Any]) -> int | None:
        """Return the version that an earlier call made of the same labels; None if none did, or it is damaged.

        One that somebody went back from is among them, so that it is not promoted again under another number.
        """
        registry = self._serving.registry
        wanted = (self._model_id, about["of"], about["labels"])
        for version in reversed(registry.versions()):
            record = registry.push_record(version) or {}
            known = record.get("feedback", {})
            if (record.get("model_id"), known.get("of"), known.get("labels")) == wanted:
                return version if not registry.verify(version).problem else None
        return None

    def _pushed(self, model: Path, about: Mapping[str, Any]) -> int:
        """Export the new model as the one before was, and push it with its evidence; return its version."""
        from bike_pipeline.exporting.acceptance import report
        from bike_pipeline.model_registry import layout, model_signature, signing, verification

        serving, registry = self._serving, self._serving.registry
        exports = model.with_name("exports")
        exports.mkdir()
        self._export(model, exports)
        now = time.time()
        version = max(int(now), registry.versions()[-1] + 1)
        record = {
            **{name: serving.record[name] for name in ("model_id", "model_uri", "metric_set")},
            "fingerprint": layout.fingerprint(model),
            "exports": report.passed(exports),
            "exports_fingerprint": report.fingerprint_when_pushed(exports),
            "pushed_at_ms": int(now * 1000),
            "feedback_of": serving.version,
            "feedback": about,
        }
        evidence = {**(verification.evidence_of(serving.folder) or {}), "feedback": about}
        signer = signing.signer()

        def complete(incoming: Path) -> None:
            report.add_to_version(exports, incoming)
            if (card := serving.folder / layout.CARD_FOLDER).is_dir():
                shutil.copytree(card, incoming / layout.CARD_FOLDER)
            model_signature.write(incoming, evidence, signer, version)

        registry.add(model, version, record, complete)
        return version

    def _export(self, model: Path, exports: Path) -> None:
        from bike_pipeline.use_cases import export

        formats = export.formats_of(self._settings, self._formats)
        found = export.with_rows(self._settings, self._lineage, self._model_id, model, blessed=True)
        made = export.measured(self._settings, formats, found, exports, saved_model_here=True)["formats"]
        for name in self._formats:
            if not made[name]["passed"]:
                raise ExportError(
                    f"{made[name]['title']}, which version {self._serving.version} holds, cannot be made of the new "
                    f"version: {made[name]['reason'].rstrip('.')}",
                    fix="mend that, then call again; nothing was changed",
                )

    def _waiting(self, own: int) -> tuple[int, ...]:
        from bike_pipeline.model_registry.deployment import PUSHED, VALIDATED

        registry, found = self._serving.registry, []
        state = registry.deployment()
        for version in registry.versions():
            record = registry.push_record(version) or {}
            waits = state is not None and state.status(version) in (PUSHED, VALIDATED)
            if waits and version != own and "feedback_of" in record and record["model_id"] == self._model_id:
                found.append(version)
        return tuple(found)
