"""What is on record of a model or a run, in words, and the spans that it was made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_metadata.proto import metadata_store_pb2 as pb

from bike_pipeline.errors import BikePipelineError
from bike_pipeline.lineage.records.run_record import RunSource
from bike_pipeline.lineage.store.entities import PushedModel
from bike_pipeline.lineage.store.metadata_store import prop
from bike_pipeline.pages import utc

# What stands beside the commit where the code differed from it.
UNCOMMITTED = "with changes that were not committed"


@dataclass(frozen=True)
class SpanFiles:
    """A span that was read, with the SHA-256 of its files by name, their source and their hours, from the span store.

    `role` is "train, eval" or "history"; `rows` are those of each split, none where they were not recorded;
    `manifest_sha256` is "" if it was not recorded; `hours` are the first and the last one, in words; `problem` says why
    the files are not known.
    """

    span: int
    version: int
    role: str
    rows: dict[str, int]
    content_sha256: str
    manifest_sha256: str
    files: dict[str, str]
    source: str
    hours: str
    problem: str


def source_facts(source: RunSource | None) -> list[tuple[str, str]]:
    """Return what a run was made of, by name, in the order in which it is shown."""
    if source is None:
        return []
    code = source.code
    commit = code.commit or "not known"
    unknown = ", whether it was changed is not known" if code.commit else ""
    dirty = {True: f", {UNCOMMITTED}", False: ", unchanged", None: unknown}[code.dirty]
    packages = ", ".join(f"{name} {version}" for name, version in source.environment.items() if version)
    return [
        *([("called by", source.command)] if source.command else []),
        ("runner", source.runner),
        ("code", f"bike_pipeline {code.version}, commit {commit}{dirty}"),
        ("source", f"sha256 {code.source_sha256} ({len(code.files)} files)"),
        ("settings", f"sha256 {source.settings_sha256}"),
        ("schema", f"sha256 {source.schema_sha256}"),
        ("seed", str(source.seed)),
        ("environment", packages),
    ]


def training_facts(evidence: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return when and by which run a model was trained, and with which hyperparameters if a search found them."""
    model = evidence["model"]
    searched = ", ".join(f"{name} {value}" for name, value in evidence["hyperparameters"].items())
    found = [("hyperparameters", f"by a search: {searched}")] if searched else []
    return [("trained", utc(model["trained_at"])), ("run", model["run_id"]), *found]


def feedback_facts(pushes: Iterable[PushedModel]) -> list[tuple[str, str]]:
    """Return what labels that came after training made of a model, by the newest of its pushes; nothing if none did."""
    updated = [push for push in pushes if push.feedback]
    if not updated:
        return []
    newest = updated[-1]
    labels, (low, high) = newest.feedback["labels"], newest.feedback["factors"]
    hours = f"{labels['rows']:,} labels from {_hour(labels['first'])} to {_hour(labels['last'])}"
    updates = "1 update" if newest.feedback["updates"] == 1 else f"{newest.feedback['updates']} updates"
    made = f"version {newest.version} of version {newest.feedback['of']}"
    return [("feedback", f"{updates}, {hours}, answers times {low:.2f} to {high:.2f}: {made}")]


def monitor_facts(looks: Sequence[pb.Execution]) -> list[tuple[str, str]]:
    """Return what the newest look at a version said while it served; nothing if none was."""
    if not looks:
        return []
    count = "1 look" if len(looks) == 1 else f"{len(looks):,} looks"
    window = " to ".join(_hour(str(prop(looks[-1], name))) for name in ("first", "last"))
    said = f"{prop(looks[-1], 'headline')} ({prop(looks[-1], 'verdicts')})"
    return [("monitor", f"{count}, the newest at {window}: {said}, report sha256 {prop(looks[-1], 'sha256')}")]


def _hour(moment: str) -> str:
    return moment.replace("T", " ")


def spans_of(window: list[dict[str, Any]], store_uri: str) -> list[SpanFiles]:
    """Return the spans of a window (see `window_of`), oldest first, with what the store tells of them."""
    found = []
    for number, entry in enumerate(window, 1):
        role = "train, eval" if number == len(window) else "history"
        role += f", from {entry['from'][:10]} on" if "from" in entry else ""
        content, manifest = str(entry["content_sha256"]), str(entry["manifest_sha256"])
        stored = _stored(entry, store_uri)
        span, version, rows = int(entry["span"]), int(entry["version"]), dict(entry.get("rows", {}))
        found.append(SpanFiles(span, version, role, rows, content, manifest, *stored))
    return found


def _stored(entry: dict[str, Any], store_uri: str) -> tuple[dict[str, str], str, str, str]:
    from bike_pipeline.data.manifest import TimeRange
    from bike_pipeline.data.spans import SpanStore

    try:
        stored = SpanStore(store_uri).get(int(entry["span"]), int(entry["version"]))
    except (BikePipelineError, OSError) as error:
        return {}, "", "", f"the span store does not tell: {error}"
    expected = entry["manifest_sha256"]
    if expected and stored.manifest_sha256 != expected:
        return {}, "", "", f"the store at {store_uri} holds another manifest (sha256 {stored.manifest_sha256[:16]}…)"
    if stored.manifest.content_sha256 != entry["content_sha256"]:
        return {}, "", "", f"the store at {store_uri} holds other rows under this number"
    files = {name: record.sha256 for name, record in stored.manifest.files.items()}
    hours = str(TimeRange(first=stored.manifest.first, last=stored.manifest.last))
    return files, f"{stored.manifest.source.kind} {stored.manifest.source.location}", hours, ""
