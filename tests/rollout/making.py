"""Pushed versions that are quick to make: what promotion looks at, and no model inside."""

from __future__ import annotations

from pathlib import Path

from bike_pipeline.model_registry import ModelRegistry, layout


def push(base: Path, *versions: int) -> None:
    """Push versions whose model is one file that says which version it is."""
    for version in versions:
        model = base.parent / f"model-{version}"
        model.mkdir(parents=True)
        (model / "saved_model.pb").write_text(f"graph {version}", encoding="utf-8")
        record = {
            "model_id": version,
            "model_uri": str(model),
            "metric_set": "m",
            "fingerprint": layout.fingerprint(model),
            "pushed_at_ms": version * 1000,
        }
        ModelRegistry(base).add(model, version, record)
