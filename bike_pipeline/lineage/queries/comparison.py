"""What changed between two models: data, schema, features, code, settings, environment, metrics by slice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bike_pipeline.features import slice_name
from bike_pipeline.lineage.queries.evidence import evidence_of, source_of_model
from bike_pipeline.lineage.queries.history import History
from bike_pipeline.lineage.records.run_record import flat

_METRICS = ("mae", "rmse", "rmsle", "bias", "calibration")


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
        for name in _METRICS
        if row.get(name) is not None
    }


def _schema(history: History, model_id: int) -> dict[str, str] | None:
    """Return what the schema says of each feature and domain, as text; None if its file is gone."""
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    trainer = history.producer(model_id)
    artifacts = history.inputs(trainer.id).get("schema", []) if trainer is not None else []
    files = [file for artifact in artifacts for file in sorted(Path(artifact.uri).glob("*.pbtxt"))]
    if not files:
        return None
    try:
        schema = text_format.Parse(files[0].read_text(encoding="utf-8"), schema_pb2.Schema())
    except (OSError, text_format.ParseError):
        return None
    entries = {f"feature {feature.name}": _one_line(feature) for feature in schema.feature}
    entries |= {f"domain {domain.name}": _one_line(domain) for domain in schema.string_domain}
    rest = schema_pb2.Schema()
    rest.CopyFrom(schema)
    del rest.feature[:], rest.string_domain[:]
    return {**entries, "everything else": _one_line(rest)}


def _one_line(message: Any) -> str:
    from google.protobuf import text_format

    return str(text_format.MessageToString(message, as_one_line=True))
