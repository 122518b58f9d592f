"""Whether all that made a model is at hand and as it was: code, settings, schema, data, packages, stage outputs."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bike_pipeline.errors import BikePipelineError, ConfigurationError, VerificationError
from bike_pipeline.lineage.queries.evidence import baseline_of, hyperparameters_of, source_of_model, window_of
from bike_pipeline.lineage.queries.history import History, payload_state
from bike_pipeline.lineage.records import sealing
from bike_pipeline.lineage.records.run_record import RunSource, environment, sha256_of, source_files
from bike_pipeline.lineage.store.metadata_store import Lineage, prop
from bike_pipeline.model_registry import ModelRegistry, is_intact, layout, local_copy
from bike_pipeline.model_registry.model_signature import Check
from bike_pipeline.settings import PROJECT_ROOT, Settings
from bike_pipeline.stages import Stage

# In the scratch root the baseline must not have the number of the model that is trained there.
_FOREIGN_MODEL = -1


@dataclass(frozen=True)
class Match:
    """One thing that made the model, held against what is here, and whether the model cannot be made again without it.

    `part` is "record", "code", "settings", "schema", "data", "environment" or "baseline".
    """

    part: str
    name: str
    same: bool
    needed: bool
    detail: str


@dataclass(frozen=True)
class Origin:
    """All that made a model, as it is on record: what its run was made of, and the spans (`evidence.window_of`).

    `missing` says in words what the record lacks; `baseline` is the model it was held against, and began from where
    warm start was on, as BaselineLookup found it; `hyperparameters` are the settings that a search had found for it.
    """

    model_id: int
    source: RunSource | None
    window: list[dict[str, Any]]
    missing: tuple[str, ...]
    baseline: dict[str, Any]
    hyperparameters: dict[str, Any] = field(default_factory=dict)


def origin_of(history: History, model_id: int) -> Origin:
    """Return what made a model."""
    source, missing = source_of_model(history, model_id)
    window, base = window_of(history.trained_on(model_id)), history.trained_on(model_id, "base_model")
    lookups = [history.producer(base.id) if base else None, *history.consumers(model_id, Stage.BASELINE_LOOKUP)]
    baseline = next(filter(None, map(baseline_of, filter(None, lookups))), {})
    missing = missing if window else (*missing, "the data fingerprint")
    return Origin(model_id, source, window, missing, baseline, hyperparameters_of(history, model_id))


def matches(origin: Origin, store_uri: str, project: Path = PROJECT_ROOT) -> list[Match]:
    """Hold everything that made a model against what is in the span store and in `project`, hash by hash."""
    source = origin.source
    found = [Match("record", text, same=False, needed=True, detail="not on record") for text in origin.missing]
    if source is not None:
        files, here = source.code.files, environment()
        found += _compared("code", files, source_files(project), f"{len(files)} source files", "the same SHA-256")
        found += _settings(source, project)
        versions = f"Python {here['python']}, TensorFlow {here['tensorflow']}"
        found += _compared("environment", source.environment, here, f"{len(here)} versions", versions)
    found += [span_match(entry, store_uri) for entry in origin.window]
    if origin.baseline:
        found.append(_baseline(origin))
    return found


def _compared(part: str, before: Mapping[str, str], now: Mapping[str, str], whole: str, same: str) -> Iterator[Match]:
    """Yield what differs by name, files as such and versions as they are; or all of it as one, where nothing does."""
    code = part == "code"
    for name in sorted(name for name in {*before, *now} if before.get(name) != now.get(name)):
        lost = "is not here" if name not in now else "was not there then" if name not in before else "was changed"
        versions = f"{before.get(name) or 'absent'} then, {now.get(name) or 'absent'} now"
        yield Match(part, name, same=False, needed=code, detail=lost if code else versions)
    if before and before == now:
        yield Match(part, whole, same=True, needed=code, detail=same)


def _settings(source: RunSource, project: Path) -> Iterator[Match]:
    sound = sha256_of(source.settings) == source.settings_sha256
    detail = f"sha256 {source.settings_sha256[:16]}…" if sound else "the recorded settings are damaged"
    try:
        schema = Path(str(source.settings.get("schema_file", "")))
        Settings.model_validate(source.settings)
    except ValueError as error:
        sound, detail = False, f"this release does not take them: {str(error).splitlines()[0]}"
    yield Match("settings", "resolved settings", sound, needed=True, detail=detail)
    path = schema if schema.is_absolute() else project / schema
    now = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    same = bool(now) and now == source.schema_sha256
    yield Match("schema", str(schema), same, needed=True, detail=_hashes(source.schema_sha256, now))


def span_match(entry: Mapping[str, Any], store_uri: str) -> Match:
    """Hold a span version of `evidence.window_of` against the span store, file by file."""
    from bike_pipeline.data.spans import SpanStore

    span, version = int(entry["span"]), int(entry["version"])
    name = f"span {span} version {version}"
    try:
        found = SpanStore(store_uri).verify(span, version)
    except (BikePipelineError, OSError) as error:
        return Match("data", name, same=False, needed=True, detail=str(error))
    same = found.manifest.content_sha256 == entry["content_sha256"]
    detail = f"content {_hashes(entry['content_sha256'], found.manifest.content_sha256)}"
    if entry["manifest_sha256"]:
        same = same and found.manifest_sha256 == entry["manifest_sha256"]
        detail = f"manifest {_hashes(entry['manifest_sha256'], found.manifest_sha256)}"
    return Match("data", name, same, needed=True, detail=detail)


def _hashes(before: str, now: str) -> str:
    if before == now:
        return f"sha256 {now[:16]}…"
    return f"sha256 {before[:16] or '(none)'}… then, {now[:16] or '(none)'}… now"


def _baseline(origin: Origin) -> Match:
    version, folder = origin.baseline.get("version"), str(origin.baseline.get("destination", ""))
    here = is_intact(folder, str(origin.baseline.get("fingerprint", "")))
    warm = bool(origin.source and origin.source.settings.get("training", {}).get("warm_start"))
    detail = f"its files are at {folder}" if here else f"its files are not at {folder} as they were"
    if not here and not warm:
        detail += "; the gates against the baseline are left out"
    return Match("baseline", f"version {version}", here, needed=warm, detail=detail)


def scratch_settings(origin: Origin, store_uri: str, scratch: Path) -> Settings:
    """Fill a scratch root with a model's data and its baseline; return the recorded settings, set to work there.

    Settings that are not on record are a VerificationError, those that this release does not take a ConfigurationError,
    a span version that is not there or was changed a DataError, and an OSError says that nothing can be written.
    """
    from bike_pipeline.data.spans import SpanStore

    if origin.source is None or not origin.source.settings:
        raise VerificationError(
            f"the settings of model {origin.model_id} are not on record",
            fix="only models of this release or later can be reproduced",
        )
    recorded = dict(origin.source.settings)
    # Nothing outside of the scratch root may be written: neither the records nor what serves, nor is its key needed.
    recorded.pop("metadata", None)
    recorded.pop("tracking", None)
    recorded |= {
        "workspace": str(scratch),
        "data": {**recorded["data"], "store": ""},
        "serving": {**recorded["serving"], "base_path": "", "promotion": {"automatic": False}},
        "signing": {},
    }
    if origin.hyperparameters:
        # What was found is on record; to search again would take hours to find the same.
        recorded["training"] = {**recorded["training"], **origin.hyperparameters}
        recorded["tuning"] = {**recorded["tuning"], "enabled": False, "import_best": False}
    try:
        settings = Settings.model_validate(recorded)
    except ValueError as error:
        raise ConfigurationError(
            f"this release does not take the recorded settings ({str(error).splitlines()[0]})",
            fix="check out the recorded commit, then call again",
        ) from None
    store = SpanStore(store_uri)
    for entry in origin.window:
        store.export(int(entry["span"]), int(entry["version"]), Path(settings.store_uri))
    destination = str(origin.baseline.get("destination", ""))
    if origin.baseline and is_intact(destination, str(origin.baseline.get("fingerprint", ""))):
        folder = local_copy(destination)
        target = Path(settings.serving_path) / folder.name
        shutil.copytree(folder, target)
        record = ModelRegistry(folder.parent).push_record(int(folder.name)) or {}
        record |= {"model_id": _FOREIGN_MODEL, "model_uri": str(target)}
        (target / layout.PUSH_FILE).write_text(json.dumps(record), encoding="utf-8")
    return settings


def checks_of(lineage: Lineage, model_id: int, store_uri: str) -> list[Check]:
    """Return a check for the outputs of all stages behind a model, and one for each span that it was made of.

    None for a model of a release that did not seal outputs. Files that `gc` freed are counted and not missed.
    """
    history = History(lineage)
    artifacts = [history.all_artifacts[artifact_id] for artifact_id in sorted(history.lineage_of([model_id])[0])]
    seals = {artifact.id: prop(artifact, sealing.SEAL_PROPERTY) for artifact in artifacts}
    if not any(seals.values()):
        return []
    states = [payload_state(artifact) for artifact in artifacts]
    there = [a for a, state in zip(artifacts, states, strict=True) if state in ("there", "missing")]
    wrong = [words for artifact in there if (words := sealing.difference(artifact.uri, seals[artifact.id]))]
    checks = [Check("stage outputs", passed=False, detail=words) for words in wrong]
    if not wrong:
        left_out = (("freed", "freed by gc"), ("remote", "on object storage and not looked at"))
        counted = [f"{states.count(state)} {words}" for state, words in left_out if state in states]
        detail = ", ".join([f"{len(there)} as they were written", *counted])
        checks.append(Check("stage outputs", passed=True, detail=detail))
    for entry in next(filter(None, (window_of(a) for a in artifacts if a.type == "Examples")), []):
        match = span_match(entry, store_uri)
        checks.append(Check("data", passed=match.same, detail=f"{match.name}: {match.detail}"))
    return checks
