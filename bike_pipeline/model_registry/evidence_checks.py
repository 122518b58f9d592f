"""Whether every piece of evidence is there and speaks for the model; what is absent never passes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from bike_pipeline.model_registry.manifest import Check

_SHA256_LENGTH = 64


def evidence_checks(evidence: Mapping[str, Any]) -> Iterator[Check]:
    """Return a check for each piece of evidence; see `lineage.queries.evidence`."""
    for name, problem, found in (
        ("data fingerprint", *_data(evidence.get("data"))),
        ("code", *_code(evidence.get("code"))),
        ("settings", *_settings(evidence)),
        ("schema", *_hash(evidence.get("schema_sha256"))),
        ("seed", "" if isinstance(evidence.get("seed"), int) else "it is missing", str(evidence.get("seed"))),
        ("environment", *_environment(evidence.get("environment"))),
        ("gates", *_gates(evidence.get("gates"))),
        ("metrics", *_metrics(evidence.get("metrics"))),
    ):
        yield Check(f"evidence: {name}", passed=not problem, detail=problem or found)


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and len(value) == _SHA256_LENGTH and set(value) <= set("0123456789abcdef")


def _hash(value: Any) -> tuple[str, str]:
    return ("", f"sha256 {value[:16]}…") if _is_sha256(value) else ("its SHA-256 is missing", "")


def _data(window: Any) -> tuple[str, str]:
    if not isinstance(window, list) or not window:
        return "it is missing", ""
    named = []
    for entry in window:
        if not isinstance(entry, dict) or not {"span", "version"} <= entry.keys():
            return "it is damaged", ""
        where = f"span {entry['span']} version {entry['version']}"
        if not _is_sha256(entry.get("content_sha256")) or not _is_sha256(entry.get("manifest_sha256")):
            return f"the hashes of {where} are missing", ""
        named.append(where)
    return "", ", ".join(named)


def _code(code: Any) -> tuple[str, str]:
    if not isinstance(code, dict) or not _is_sha256(code.get("source_sha256")):
        return "the hash of the source is missing", ""
    commit = f"commit {code['commit'][:12]}" if code.get("commit") else "no commit known"
    dirty = " with changes that were not committed" if code.get("dirty") else ""
    return "", f"{commit}{dirty}, source {code['source_sha256'][:16]}…"


def _settings(evidence: Mapping[str, Any]) -> tuple[str, str]:
    if not isinstance(evidence.get("settings"), dict) or not evidence["settings"]:
        return "they are missing", ""
    return _hash(evidence.get("settings_sha256"))


def _environment(packages: Any) -> tuple[str, str]:
    if not isinstance(packages, dict) or not packages.get("python"):
        return "it is missing", ""
    return "", f"Python {packages['python']}, TensorFlow {packages.get('tensorflow', '?')}"


def _gates(gates: Any) -> tuple[str, str]:
    decisions = gates.get("decisions") if isinstance(gates, dict) else None
    if not isinstance(decisions, list) or not decisions:
        return "the decisions are missing", ""
    binding = [entry for entry in decisions if isinstance(entry, dict) and entry.get("binding") is True]
    failed = [entry for entry in binding if entry.get("passed") is not True]
    if not binding or failed or gates.get("blessed") is not True:
        reason = failed[0].get("reason", "") if failed else "nothing binding was decided"
        return f"the model was not blessed ({reason})", ""
    return "", f"blessed by {len(binding)} binding decisions"


def _metrics(metrics: Any) -> tuple[str, str]:
    rows = metrics if isinstance(metrics, list) else []
    overall = next((row for row in rows if isinstance(row, dict) and row.get("slicing") == "overall"), None)
    mae = overall.get("mae") if overall else None
    if not isinstance(mae, int | float) or not math.isfinite(mae):
        return "the overall metrics are missing", ""
    return "", f"MAE {mae:.1f} overall, {len(rows) - 1} slices"
