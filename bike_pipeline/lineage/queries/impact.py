"""Which models saw the rows of a span: what an auditor asks when a source proves wrong."""

from __future__ import annotations

from dataclasses import dataclass

from bike_pipeline.errors import BikePipelineError, DataError
from bike_pipeline.lineage.queries.evidence import window_of
from bike_pipeline.lineage.queries.history import History
from bike_pipeline.lineage.store.metadata_store import Lineage, time_of


@dataclass(frozen=True)
class Sighting:
    """A model that saw the rows.

    Attributes:
        trained_at: ISO 8601 in UTC.
        version: the version of the span that the model saw.
        role: "trained on" (as the newest span), "trained on as history", or "through the warm start of model N".
        carried_over: rows of the version that was asked for that this later version took over; None if it is the
            version itself, or if the span store does not tell.
        blessed: None if it was never evaluated.
        served_versions: the versions it was pushed as.
    """

    model_id: int
    trained_at: str
    span: int
    version: int
    role: str
    carried_over: int | None
    blessed: bool | None
    served_versions: tuple[int, ...]
    serving: bool


@dataclass(frozen=True)
class Impact:
    """The models that saw a span version (None: any), oldest first; one that saw it in two ways stands there twice.

    `notes` say what is not known.
    """

    span: int
    version: int | None
    sightings: tuple[Sighting, ...]
    notes: tuple[str, ...]


def parse_span(text: str) -> tuple[int, int | None]:
    """Return span and version of "SPAN/VERSION" or "SPAN".

    Raises:
        DataError: it is neither.
    """
    span, _, version = text.partition("/")
    if not span.isdigit() or ("/" in text and not version.isdigit()):
        raise DataError(f"'{text}' names no span", fix="write SPAN or SPAN/VERSION, such as 2/1")
    return int(span), int(version) if version else None


def impact_of(
    lineage: Lineage, history: History, span: int, version: int | None, store_uri: str, serving_path: str = ""
) -> Impact:
    """Return every model that saw the rows of a span version: directly, as history, corrected, or by a warm start.

    A later version of a span carries rows of the one before it over, so models trained on it count too, with the number
    of rows that were carried over. `version` None asks for all of them; `serving_path` as in `Lineage.models`.

    Raises:
        DataError: neither a recorded run nor the store knows the span version.
    """
    carried, notes = _carried_over(span, version, store_uri)
    records = {model.model_id: model for model in lineage.models(serving_path)}
    pushes: dict[int, list[int]] = {}
    for push in lineage.pushes():
        pushes.setdefault(push.model_id, []).append(push.version)
    found: list[Sighting] = []
    known = bool(carried)
    seen: dict[int, list[tuple[int, str, int | None]]] = {}
    for _, window in history.windows():
        known |= any(e["span"] == span and version in (None, e["version"]) for e in window)
    for model, trainer in history.trained_models():
        examples = history.examples_of(trainer)
        ways = []
        window = window_of(examples) if examples is not None else []
        for number, entry in enumerate(window, 1):
            asked = entry["span"] == span and version in (None, entry["version"])
            if asked or (entry["span"] == span and carried.get(entry["version"], 0)):
                role = "trained on" if number == len(window) else "trained on as history"
                ways.append((int(entry["version"]), role, None if asked else carried[entry["version"]]))
        base = history.base_model(trainer)
        # A base model is older than what began from it, so it was looked at already.
        ways += [(v, f"through the warm start of model {base}", rows) for v, _, rows in seen.get(base or -1, ())]
        seen[model.id] = ways
        record = records.get(model.id)
        for seen_version, role, rows in ways:
            found.append(
                Sighting(
                    model_id=model.id,
                    trained_at=time_of(model.create_time_since_epoch).isoformat(timespec="seconds"),
                    span=span,
                    version=seen_version,
                    role=role,
                    carried_over=rows,
                    blessed=record.blessed if record else None,
                    served_versions=tuple(pushes.get(model.id, ())),
                    serving=bool(record and record.serving),
                )
            )
    if not known and not found:
        name = f"span {span}" if version is None else f"span {span} version {version}"
        raise DataError(f"nothing is known of {name}", where=store_uri, fix="`bike-pipeline data list` lists the spans")
    return Impact(span, version, tuple(found), tuple(notes))


def _carried_over(span: int, version: int | None, store_uri: str) -> tuple[dict[int, int], list[str]]:
    """Return by later version how many rows it may have from the version asked for, and what is not known."""
    from bike_pipeline.data.spans import SpanStore

    try:
        store = SpanStore(store_uri)
        numbers = store.versions(span)
        if version is None:
            return dict.fromkeys(numbers, 0), []
        rows: dict[int, int] = {}
        for number in numbers:
            parent = store.get(span, number).manifest.parent
            taken = store.get(span, number).manifest.rows.from_parent
            if number == version:
                rows[number] = 0
            elif parent is not None and taken and (parent.version == version or rows.get(parent.version)):
                rows[number] = taken
        return rows, []
    except (BikePipelineError, OSError) as error:
        return {}, [f"which later versions carry rows over is not known: {error}"]
