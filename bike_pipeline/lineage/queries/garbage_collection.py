"""Frees the files of old artifacts, never those that a served model's lineage needs; their records stay.

An artifact is marked in ML Metadata before its files go and after they are gone (`MARKED_FOR_DELETION`, `DELETED`).
TFX's cache answers only from artifacts that are `LIVE`, so neither a half-deleted nor a deleted one can answer a later
run, and whatever a crash leaves marked is finished by the next call.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ml_metadata import errors as mlmd_errors
from ml_metadata.proto import metadata_store_pb2 as pb

from bike_pipeline.errors import MetadataError, StorageError, first_words
from bike_pipeline.lineage.queries.evidence import baseline_of, decisions_of
from bike_pipeline.lineage.queries.history import History
from bike_pipeline.lineage.store.metadata_store import CANCELED, FAILED, RUNNING, prop
from bike_pipeline.stages import DECISIONS_PROPERTY, Stage

# What a killed stage wrote and never recorded.
UNRECORDED = "left by a killed stage"
_FREED_AT = "freed_at"
_MARKED, _DELETED = pb.Artifact.MARKED_FOR_DELETION, pb.Artifact.DELETED
_FREEABLE = (pb.Artifact.LIVE, pb.Artifact.ABANDONED, _MARKED)


@dataclass(frozen=True)
class Payload:
    """The files of one artifact (id 0: of none), their size in bytes, and why they are kept; "" if they are freed.

    `kind` is the type of the artifact, or `UNRECORDED`.
    """

    artifact_id: int
    kind: str
    uri: str
    size: int
    free: bool
    reason: str


def plan(
    history: History,
    pipeline_root: str,
    serving_path: str,
    keep_blessed: int,
    keep_days: float,
    now: datetime | None = None,
) -> list[Payload]:
    """Return what becomes of each artifact's files; nothing outside of `pipeline_root` is ever freed.

    Kept are the lineage of the model that serves and of the baseline that it was blessed against, the lineage of the
    newest blessed models, whatever a run at work reads or writes, and whatever was made or read in the last days
    (counted back from `now`), by a run that found it in the cache too.
    """
    root = Path(pipeline_root).resolve()
    since = ((now or datetime.now(UTC)) - timedelta(days=keep_days)).timestamp() * 1000
    reasons = _reasons(history, serving_path, keep_blessed)
    local = (a for a in history.all_artifacts.values() if a.state in _FREEABLE and a.uri and "://" not in a.uri)
    inside = [artifact for artifact in local if root in Path(artifact.uri).resolve().parents]
    kept_places = set()
    for artifact in inside:
        # What a crash left marked is half gone, so nothing of it can be kept.
        if artifact.state != _MARKED:
            used = max(history.last_used[artifact.id], artifact.create_time_since_epoch)
            if artifact.id not in reasons and used >= since:
                reasons[artifact.id] = f"used in the last {keep_days:g} days"
            if artifact.id in reasons:
                kept_places.add(Path(artifact.uri).resolve())
    found = []
    for artifact in sorted(inside, key=lambda a: a.id):
        place = Path(artifact.uri).resolve()
        reason = reasons.get(artifact.id, "") if artifact.state != _MARKED else ""
        if not reason and any(place == k or place in k.parents or k in place.parents for k in kept_places):
            reason = "its folder is shared with one that is kept"
        found.append(Payload(artifact.id, artifact.type, artifact.uri, size_of(place), not reason, reason))
    return found + [
        Payload(0, UNRECORDED, str(place), size_of(place), free=True, reason="") for place in _unrecorded(root, history)
    ]


def _unrecorded(root: Path, history: History) -> Iterator[Path]:
    """Yield the folders of outputs, `<stage>/<key>/<execution>`, that a stage left which ended badly and is on record.

    What belongs to no such execution stays: it may be another store's.
    """
    # The end of each address only, since a workspace may have been moved.
    recorded = {Path(artifact.uri).parts[-3:] for artifact in history.all_artifacts.values()}
    for place in sorted(root.glob("[!.]*/[!.]*/*")):
        number = int(place.name) if place.name.isdecimal() else 0
        execution = history.executions.get(number)
        if (
            execution is not None
            and execution.last_known_state in (FAILED, CANCELED)
            and history.stage_of(execution) == place.parts[-3]
            and place.parts[-3:] not in recorded
        ):
            yield place


def _reasons(history: History, serving_path: str, keep_blessed: int) -> dict[int, str]:
    """Return why artifacts are kept, whatever their age."""
    wanted: list[tuple[str, list[int]]] = []
    serving = history.serving_now(serving_path)
    if serving is not None:
        model_id = serving.model_id
        pushes = [i for push in history.consumers(model_id, Stage.PUSHER) for i in _ids(history.outputs(push.id))]
        baselines = map(baseline_of, history.consumers(model_id, Stage.BASELINE_LOOKUP))
        wanted.append(("lineage of the model that serves", [model_id, *pushes]))
        wanted.append(("lineage of its baseline", [int(b["model_id"]) for b in baselines if "model_id" in b]))
    blessed = [model.model_id for model in reversed(history.models()) if model.blessed][:keep_blessed]
    wanted.append((f"lineage of the {keep_blessed} newest blessed models", blessed))
    at_work = [e.id for e in history.executions.values() if e.last_known_state == RUNNING]
    in_use = [i for number in at_work for i in (*_ids(history.inputs(number)), *_ids(history.outputs(number)))]
    wanted.append(("a run is at work on it", in_use))
    reasons: dict[int, str] = {}
    for reason, starts in wanted:
        for artifact_id in history.lineage_of(starts)[0]:
            reasons.setdefault(artifact_id, reason)
    return reasons


def _ids(linked: dict[str, list[pb.Artifact]]) -> list[int]:
    return [artifact.id for found in linked.values() for artifact in found]


def size_of(place: Path) -> int:
    """Return the size of a file, or of all files below a folder, in bytes; 0 if there is nothing."""
    if place.is_file():
        return place.stat().st_size
    return sum(path.lstat().st_size for path in place.rglob("*") if path.is_file() or path.is_symlink())


def collect(history: History, payloads: Iterable[Payload]) -> None:
    """Free the files of the payloads that are to be freed.

    A MetadataError says that the store cannot be written: nothing is freed that is not marked there; a StorageError
    that files cannot be deleted: they stay marked, and the next call goes on with them.
    """
    freed = [payload for payload in payloads if payload.free]
    for payload in freed:
        if payload.kind == UNRECORDED:
            _delete(Path(payload.uri))
    chosen = [history.all_artifacts[payload.artifact_id] for payload in freed if payload.kind != UNRECORDED]
    for artifact in chosen:
        # What an older release wrote into the file only goes on record: what was decided stays.
        if artifact.type == "ModelEvaluation" and prop(artifact, DECISIONS_PROPERTY) is None:
            report = decisions_of(artifact)
            if report is not None:
                artifact.custom_properties[DECISIONS_PROPERTY].string_value = json.dumps(report)
        artifact.state = _MARKED
    _put(history, chosen)
    for artifact in chosen:
        _delete(Path(artifact.uri))
        artifact.state = _DELETED
        artifact.custom_properties[_FREED_AT].string_value = datetime.now(UTC).isoformat(timespec="seconds")
        _put(history, [artifact])


def _delete(place: Path) -> None:
    try:
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(
            f"cannot delete it ({error.strerror or error})",
            where=str(error.filename or place),
            fix="grant write permission, then call again: it goes on where it stopped",
        ) from None


def _put(history: History, artifacts: list[pb.Artifact]) -> None:
    if not artifacts:
        return
    try:
        history.store.put_artifacts(artifacts)
    except (mlmd_errors.StatusError, RuntimeError) as error:
        raise MetadataError(
            f"the metadata store cannot be written ({first_words(error, 200)})",
            fix="mend that, then call again: it goes on where it stopped",
        ) from None
