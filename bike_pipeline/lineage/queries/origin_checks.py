"""Whether what a pushed model was made of and judged by is still what the stages and the ingest wrote."""

from __future__ import annotations

from bike_pipeline.lineage.queries.evidence import window_of
from bike_pipeline.lineage.queries.history import History, payload_state
from bike_pipeline.lineage.queries.reproducibility import span_match
from bike_pipeline.lineage.records import sealing
from bike_pipeline.lineage.store.metadata_store import Lineage, prop
from bike_pipeline.model_registry.model_signature import Check


def checks_of(lineage: Lineage, model_id: int, store_uri: str) -> list[Check]:
    """Return a check for the outputs of all stages behind a model, and one for each span that it was made of.

    None for a model of a release that did not seal outputs. Files that `gc` freed are counted and not missed.
    """
    history = History(lineage)
    found, _ = history.lineage_of([model_id])
    artifacts = [history.artifacts[artifact_id] for artifact_id in sorted(found)]
    seals = {artifact.id: prop(artifact, sealing.SEAL_PROPERTY) for artifact in artifacts}
    if not any(seals.values()):
        return []
    there = [artifact for artifact in artifacts if payload_state(artifact) in ("there", "missing")]
    wrong = [words for artifact in there if (words := sealing.difference(artifact.uri, seals[artifact.id]))]
    checks = [Check("stage outputs", passed=False, detail=words) for words in wrong]
    if not wrong:
        left_out = [
            f"{len(states)} {words}"
            for state, words in (("freed", "freed by gc"), ("remote", "on object storage and not looked at"))
            if (states := [a for a in artifacts if payload_state(a) == state])
        ]
        detail = ", ".join([f"{len(there)} as they were written", *left_out])
        checks.append(Check("stage outputs", passed=True, detail=detail))
    window = next((w for a in artifacts if a.type == "Examples" for w in [window_of(a)] if w), [])
    for entry in window:
        match = span_match(entry, store_uri)
        checks.append(Check("data", passed=match.same, detail=f"{match.name}: {match.detail}"))
    return checks
