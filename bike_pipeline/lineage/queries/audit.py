"""What an auditor asks of models: which of them saw the rows of a span, and what changed between two of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from bike_pipeline.errors import BikePipelineError, DataError
from bike_pipeline.features import answer_measured, slice_name
from bike_pipeline.lineage.queries.evidence import evidence_of, source_of_model, window_of
from bike_pipeline.lineage.queries.history import History
from bike_pipeline.lineage.records.run_record import flat


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
        window = window_of(history.trained_on(model.model_id))
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
    recorded = (entry for examples in history.artifacts("Examples") for entry in window_of(examples))
    if not (found or carried or any(map(asked, recorded))):
        name = f"span {span}" if version is None else f"span {span} version {version}"
        raise DataError(f"nothing is known of {name}", where=store_uri, fix="`bike-pipeline data list` lists the spans")
    return Impact(span, version, tuple(found), tuple(notes))


def _carried_over(span: int, version: int | None, store_uri: str) -> tuple[dict[int, int], list[str]]:
    """Return by later version how many rows it may have from the version asked for, and what is not known."""
    from bike_pipeline.data.spans import SpanStore

    try:
        store = SpanStore(store_uri)
        numbers = store.versions(span, withdrawn=True)
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


@dataclass(frozen=True)
class Difference:
    """One thing (a file, a setting, a slice and metric) of a part that two models do not share; "" if one has none."""

    part: str
    name: str
    before: str
    after: str


@dataclass(frozen=True)
class Comparison:
    """Two models by their MLMD ids: the parts that do not differ, everything that does, what cannot be compared."""

    first: int
    second: int
    same: tuple[str, ...]
    differences: tuple[Difference, ...]
    unknown: tuple[str, ...]


def compare(history: History, first: int, second: int) -> Comparison:
    """Return what changed from the first model to the second."""
    one, two = (evidence_of(history, model_id, pushed=False) for model_id in (first, second))
    source_one, source_two = (source_of_model(history, model_id)[0] for model_id in (first, second))
    unknown = [f"model {number}: {text}" for number, e in ((first, one), (second, two)) for text in e["missing"]]
    parts: dict[str, tuple[Mapping[str, str], Mapping[str, str]]] = {"data": (_data(one), _data(two))}
    if source_one is None or source_two is None:
        unknown.append("code, settings, features, schema and environment: only both records together could tell")
    else:
        schemas = _schema(history, first), _schema(history, second)
        same_schema = source_one.schema_sha256 == source_two.schema_sha256
        if same_schema or None in schemas:
            schemas = {"sha256": source_one.schema_sha256}, {"sha256": source_two.schema_sha256}
        parts |= {
            "schema": (schemas[0] or {}, schemas[1] or {}),
            "features": (_features(source_one.features), _features(source_two.features)),
            "code": (_code(source_one.code), _code(source_two.code)),
            "settings": (flat(source_one.settings), flat(source_two.settings)),
            "environment": (source_one.environment, source_two.environment),
        }
    if one["metrics"] and two["metrics"]:
        parts["metrics"] = (_metrics(one["metrics"]), _metrics(two["metrics"]))
    differences, same = [], []
    for part, (before, after) in parts.items():
        found = [
            Difference(part, name, before.get(name, ""), after.get(name, ""))
            for name in dict.fromkeys((*before, *after))
            if before.get(name, "") != after.get(name, "")
        ]
        differences += found
        same += [] if found else [part]
    return Comparison(first, second, tuple(same), tuple(differences), tuple(unknown))


def _data(evidence: Mapping[str, Any]) -> dict[str, str]:
    window = evidence["data"]
    found = {}
    for number, entry in enumerate(window, 1):
        role = "train, eval" if number == len(window) else "history"
        rows = sum(entry.get("rows", {}).values())
        found[f"span {entry['span']}"] = (
            f"version {entry['version']} as {role}, {rows:,} rows, content {entry['content_sha256'][:16]}…"
        )
    return found


def _code(code: Any) -> dict[str, str]:
    commit = f"{code.commit[:12]}{' with changes' if code.dirty else ''}" if code.commit else "not known"
    return {"version": code.version, "commit": commit, **{name: sha[:16] + "…" for name, sha in code.files.items()}}


def _features(features: list[dict[str, Any]]) -> dict[str, str]:
    values = ((feature["name"], key, value) for feature in features for key, value in feature.items())
    return {f"{name}.{key}": str(value) for name, key, value in values if key != "name"}


def _metrics(metrics: list[dict[str, Any]]) -> dict[str, str]:
    return {
        f"{slice_name(row['slicing'], row['slice'])} {name}": f"{row[name]:.4f}"
        for row in sorted(metrics, key=lambda row: row["slicing"] != "overall")
        for name in answer_measured(row).metrics
        if row.get(name) is not None
    }


def _schema(history: History, model_id: int) -> dict[str, str] | None:
    """Return what the schema says of each feature and domain, as text; None if its file is gone."""
    from tensorflow_metadata.proto.v0 import schema_pb2

    artifact = history.trained_on(model_id, "schema")
    files = sorted(Path(artifact.uri).glob("*.pbtxt")) if artifact is not None else []
    if not files:
        return None
    try:
        schema = text_format.Parse(files[0].read_text(encoding="utf-8"), schema_pb2.Schema())
    except (OSError, text_format.ParseError):
        return None
    one_line = partial(text_format.MessageToString, as_one_line=True)
    entries = {f"feature {feature.name}": one_line(feature) for feature in schema.feature}
    entries |= {f"domain {domain.name}": one_line(domain) for domain in schema.string_domain}
    del schema.feature[:], schema.string_domain[:]
    return {**entries, "everything else": one_line(schema)}
