"""A version's evidence in one signed folder, which a stranger verifies without this product (docs/evidence.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bike_pipeline.errors import ConfigurationError, ModelError, StorageError, VerificationError, and_more
from bike_pipeline.run_events import RunObserver
from bike_pipeline.use_cases import run, serving
from bike_pipeline.use_cases.lineage import lineage_of
from bike_pipeline.use_cases.retraining import has_ledger, open_ledger

if TYPE_CHECKING:
    from bike_pipeline.model_registry import ModelRegistry
    from bike_pipeline.settings import Settings

# What stands before everything that the technical documentation lacks, in its template.
_ABSENT = "not on record:"


@dataclass(frozen=True)
class EvidenceFolder:
    """A written folder: its files but for the list and its signature, the signing key, and what a person must add.

    `not_on_record` counts what Annex IV asks for and no record tells; annex_iv.md names each.
    """

    folder: str
    version: int
    files: list[str]
    key_id: str
    not_on_record: int


def evidence(
    settings: Settings,
    version: int | None = None,
    output: Path | None = None,
    *,
    reproduce: bool = False,
    observer: RunObserver | None = None,
) -> EvidenceFolder:
    """Write what speaks for a pushed version, by default the one that serves, into a new folder, and sign it.

    By default that is <workspace>/evidence/VERSION. It appears whole or not at all. With `reproduce` the model is made
    again first, and what came of it is part of the evidence, whether it came out the same or not.

    Raises:
        ModelError: there is no such version.
        VerificationError: the version is not what was pushed, or evidence is missing.
        ConfigurationError: there is no key to sign with.
        MissingExtraError: the extra `supply-chain`, which makes the bill of materials, is not installed.
        StorageError: the folder is there already, or cannot be written.
    """
    from bike_pipeline.model_registry import ModelRegistry, checksums, signing
    from bike_pipeline.storage.atomic_files import create_folder, write_tree

    registry = ModelRegistry(settings.serving_path)
    chosen = registry.serving() if version is None else version
    if chosen is None or chosen not in registry.versions():
        what = "no model is served" if chosen is None else f"version {chosen} is not there"
        raise ModelError(what, where=settings.serving_path, fix="`bike-pipeline models` lists what is pushed")
    target = (output or settings.workspace_path / "evidence" / str(chosen)).expanduser().absolute()
    if target.exists():
        raise StorageError("it is there already", where=str(target), fix="move it away, or name another --output")
    verified = serving.verify(settings, str(chosen))
    verified.require()
    signer = signing.signer()
    if signer is None:
        fix = "run the pipeline, which makes one, or name one there"
        raise ConfigurationError("there is no key to sign with", where="signing.key_file", fix=fix)
    contents, annex = _documents(settings, registry, chosen)
    made = run.reproduce(settings, str(chosen), observer=observer) if reproduce else None
    annex |= {"reproduced": made and run.predictions_in_words(made.agreement), "checks": verified.checks}
    contents["verification.json"] = _json([asdict(check) for check in verified.checks])
    contents["reproduction.json"] = _json({"reproduced": bool(made), "agreement": made and asdict(made.agreement)})
    contents["annex_iv.md"] = _page("annex_iv.md", annex)
    how = {"files": len(contents) + 1, "key_id": signer.key_id, "digest": signer.document_digest}
    contents["VERIFY.md"] = _page("verify_evidence.md", {"version": chosen, **how})

    def fill(folder: Path) -> None:
        write_tree(folder, contents)
        checksums.write(folder, signer)

    create_folder(target, fill)
    absent = contents["annex_iv.md"].count(_ABSENT.encode())
    return EvidenceFolder(str(target), chosen, sorted(contents), signer.key_id, absent)


def _documents(settings: Settings, registry: ModelRegistry, version: int) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the files by name, and what the technical documentation is filled from; what is missing is an error."""
    from bike_pipeline.lineage.queries.evidence import source_of_model
    from bike_pipeline.lineage.queries.history import History
    from bike_pipeline.lineage.queries.model_lookup import FoundModel
    from bike_pipeline.lineage.records.bill_of_materials import bill_of_materials
    from bike_pipeline.lineage.reports import model_card
    from bike_pipeline.lineage.reports.lineage_report import report_as_json, report_of_model
    from bike_pipeline.model_registry import layout, verification

    folder = registry.folder(version, fresh=True)
    history = History(lineage_of(settings))
    model_id = ((verification.evidence_of(folder) or {}).get("model") or {}).get("model_id")
    push = next((p for p in reversed(history.pushes()) if (p.version, p.model_id) == (version, model_id)), None)
    if push is None:
        what, fix = f"the push of version {version} is not on record", "name the store that its run wrote to"
        raise VerificationError(what, where=settings.metadata_address, fix=fix)
    report = report_of_model(history, FoundModel(push.model_id, push), settings.store_uri)
    source, lacking = source_of_model(history, push.model_id)
    card = model_card.read(folder / layout.CARD_FOLDER)
    own = (layout.EVIDENCE_FILE, layout.SIGNATURE_FILE, layout.PUSH_FILE)
    missing = [*dict.fromkeys([*report.missing, *lacking]), *(name for name in own if not (folder / name).is_file())]
    missing += [] if card else ["the model card"]
    if missing or source is None:
        what = f"the evidence of version {version} is not whole: {missing[0]} is missing{and_more(missing)}"
        raise VerificationError(what, where=str(folder), fix="`bike-pipeline run --no-cache` makes one that has all")
    changes = [change for change in registry.history() if version in (change.from_version, change.to_version)]
    bill = bill_of_materials()
    files = {
        layout.EVIDENCE_FILE: (folder / layout.EVIDENCE_FILE).read_bytes(),
        # Which files the model has, byte for byte, stands in its own signature.
        **{f"pushed/{name}": (folder / name).read_bytes() for name in own[1:]},
        **{f"model_card/{path.name}": path.read_bytes() for path in (folder / layout.CARD_FOLDER).iterdir()},
        "lineage.json": _json(report_as_json(report)),
        "history.json": _json([asdict(change) for change in changes]),
        "source_files.sha256": "".join(f"{sha}  {name}\n" for name, sha in source.code.files.items()).encode(),
        "sbom.cdx.json": bill,
        "retraining.json": _json(retrained := _retraining(settings, version)),
    }
    trained = next((r for r in history.runs() if r.run_id == source.run_id), None)
    exports = folder / layout.EXPORTS_FOLDER
    facts = {
        "version": version,
        "card": card,
        "report": report,
        "source": source,
        "changes": changes,
        "retrained": retrained,
        "earlier": [other for other in registry.versions() if other < version],
        "stages": [stage.name for stage in trained.stages] if trained else [],
        "formats": ["SavedModel", *sorted(path.name for path in exports.glob("*") if path.is_dir())],
        "packages": len(json.loads(bill)["components"]),
    }
    return files, facts


def _retraining(settings: Settings, version: int) -> list[dict[str, Any]]:
    """Return the runs of the ledger that pushed a version, each with its events and what was noted of it."""
    from bike_pipeline.retraining import ledger_tables

    if not has_ledger(settings):
        return []
    ledger = open_ledger(settings)
    events = {event.identity: asdict(event) for event in ledger.events()}
    return [
        {
            **asdict(made),
            "events": [{"identity": identity, **events[identity]} for identity in made.events],
            "transitions": ledger.rows(ledger_tables.transitions, subject=f"run {made.number}"),
        }
        for made in ledger.runs()
        if made.facts.get("pushed_version") == version
    ]


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _page(template: str, it: Mapping[str, Any]) -> bytes:
    from bike_pipeline.pages import render_markdown

    return f"{render_markdown(template, it=it, absent=_ABSENT)}\n".encode()
