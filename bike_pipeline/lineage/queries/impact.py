"""Which models saw the rows of a span: what an auditor asks when a source proves wrong."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from bike_pipeline.errors import BikePipelineError, DataError
from bike_pipeline.lineage.queries.evidence import window_of
from bike_pipeline.lineage.queries.history import History


@dataclass(frozen=True)
class Sighting:
    """A model that saw the rows: in which version of the span, how, and what became of it.

    `trained_at` is ISO 8601 in UTC; `role` is "trained on" (as the newest span), "trained on as history", or "through
    the warm start of model N". `carried_over` counts the rows that this later version took over from the one asked for;
    None if it is that version itself, or if the span store does not tell. `blessed` is None if it was never evaluated.
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
    """The models that saw a span version (None: any), oldest first and once a way; `notes` say what is not known."""

    span: int
    version: int | None
    sightings: tuple[Sighting, ...]
    notes: tuple[str, ...]


def parse_span(text: str) -> tuple[int, int | None]:
    """Return span and version of "SPAN/VERSION" or "SPAN"; anything else is a DataError."""
    span, _, version = text.partition("/")
    if not span.isdigit() or ("/" in text and not version.isdigit()):
        raise DataError(f"'{text}' names no span", fix="write SPAN or SPAN/VERSION, such as 2/1")
    return int(span), int(version) if version else None


def impact_of(history: History, span: int, version: int | None, store_uri: str, serving_path: str = "") -> Impact:
    """Return every model that saw the rows of a span version: directly, as history, corrected, or by a warm start.

    A later version of a span carries rows of the one before it over, so models trained on it count too, with the number
    of rows that were carried over. `version` None asks for all of them; `serving_path` as in `Lineage.models`. A span
    version that neither a recorded run nor the store knows is a DataError.
    """
    carried, notes = _carried_over(span, version, store_uri)
    served = defaultdict(list)
    for push in history.pushes():
        served[push.model_id].append(push.version)

    def asked(entry: dict[str, Any]) -> bool:
        return entry["span"] == span and version in (None, entry["version"])

    found: list[Sighting] = []
    seen: dict[int, list[tuple[int, str, int | None]]] = {}
    for model in history.models(serving_path):
        trainer = history.producer(model.model_id)
        assert trainer is not None
        ways = []
        examples = history.inputs(trainer.id).get("examples", [])
        window = window_of(examples[0]) if examples else []
        for number, entry in enumerate(window, 1):
            if asked(entry) or (entry["span"] == span and carried.get(entry["version"], 0)):
                role = "trained on" if number == len(window) else "trained on as history"
                ways.append((int(entry["version"]), role, None if asked(entry) else carried[entry["version"]]))
        base = history.base_model(trainer.id)
        # A base model is older than what began from it, so it was looked at already.
        ways += [(v, f"through the warm start of model {base}", rows) for v, _, rows in seen.get(base or -1, ())]
        seen[model.model_id] = ways
        found += [
            Sighting(
                model_id=model.model_id,
                trained_at=model.trained.isoformat(timespec="seconds"),
                span=span,
                version=seen_version,
                role=role,
                carried_over=rows,
                blessed=model.blessed,
                served_versions=tuple(served[model.model_id]),
                serving=model.serving,
            )
            for seen_version, role, rows in ways
        ]
    if not (found or carried or any(asked(entry) for window in history.windows() for entry in window)):
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
