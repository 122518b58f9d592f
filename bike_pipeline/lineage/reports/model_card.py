"""A model's card: its data, intended use, metrics by slice, explanations, limits and lineage, in three forms.

The stage ModelCard writes it; the pushed version carries it, signed with its other files. Its parts follow Mitchell et
al. 2019, "Model Cards for Model Reporting", doi 10.1145/3287560.3287596. Nothing in it says when it was written: the
same model and evaluation give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bike_pipeline import features
from bike_pipeline.lineage.queries.evidence import evidence_of
from bike_pipeline.lineage.queries.model_facts import source_facts, spans_of, training_facts
from bike_pipeline.lineage.queries.run_changes import setting_changes
from bike_pipeline.lineage.records.run_record import source_of_run
from bike_pipeline.lineage.store.metadata_store import Lineage
from bike_pipeline.pages import render, render_markdown
from bike_pipeline.stages import Stage

FORMAT = 1
JSON_FILE = "model_card.json"
HTML_FILE = "model_card.html"
MARKDOWN_FILE = "model_card.md"
# What the stage measures, and no record but the card holds.
_MEASURED = ("training", "explanations")
_WHAT = (
    "how many bikes of a whole city's sharing system are rented in one hour, from the calendar "
    "and the weather of that hour. It answers in rentals an hour, never below zero."
)
_SOURCE = (
    "The data are those of Capital "
    "Bikeshare in Washington, D.C., with the weather of each hour (Fanaee-T 2013, UCI Machine Learning Repository, "
    "doi 10.24432/C5W894, CC BY 4.0); rows that were ingested later count as the same source."
)
_PLANNING = "Planning for the system as a whole: how many bikes, people and vans an hour or a day will need."
_FORECASTS = (
    "Forecasts of an hour to come from a weather forecast, and answers to what an hour with other weather would be."
)
OUT_OF_SCOPE_USES = (
    "Single stations, trips or riders: it knows only the whole system, and holds no data about people.",
    "Other cities, or a system that was changed by far (new stations, prices), without training on its rows first.",
    "Decisions in which an error of the size below does harm and nobody looks.",
)
LIMITATIONS = (
    "It knows the years up to its newest span; growth beyond that is extrapolated for a few years at most.",
    "It needs the weather of the hour. With a forecast, the forecast's error adds to its own.",
    "Hours, seasons or weather with few rows are less certain than the overall error says.",
)


def of_target(target: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what a card says of what the model answers, its `described` target; None for rentals."""
    what, planning, limits = _WHAT, _PLANNING, [*LIMITATIONS]
    if target and target["name"] != "rentals":
        what = f"{target['meaning']}, of a city's whole bike-sharing system, from the hour's calendar and weather."
        planning = "Planning for the system as a whole: which hours to be prepared for."
        limits.append("What counts as busy was fixed when it was trained; where demand grows, more hours become busy.")
    return {
        "overview": f"A model that answers {what} {_SOURCE}",
        "intended_uses": [planning, _FORECASTS],
        "limitations": limits,
    }


def card_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a card as plain values: what holds for every model here, then `record`.

    That has "title", "facts" (pairs), "spans", "gates", "metrics", "settings" and "missing", as `LineageReport` has
    them. "training" and "explanations" are None until `with_measurements`.
    """
    kept = ("name", "meaning", "unit", "minimum", "maximum", "default")
    return {
        "format": FORMAT,
        **of_target((record.get("gates") or {}).get("target")),
        "out_of_scope_uses": list(OUT_OF_SCOPE_USES),
        "inputs": [{name: getattr(feature, name) for name in kept} for feature in features.MODEL_INPUTS],
        **dict.fromkeys(_MEASURED),
        **record,
    }


def card_of_model(lineage: Lineage, model_id: int, store_uri: str) -> dict[str, Any]:
    """Return the card of a model from ML Metadata and the span store; it is the same however often it is pushed.

    "training" has the "seconds" that the Trainer took.
    """
    evidence = evidence_of(lineage, model_id, pushed=False)
    source, _ = source_of_run(lineage.store, evidence["model"]["run_id"])
    trainer = lineage.producer(model_id)
    record = {
        "title": f"model {model_id}",
        "facts": [*training_facts(evidence), *source_facts(source)],
        "spans": [asdict(span) for span in spans_of(evidence["data"], store_uri)],
        "settings": [asdict(change) for change in setting_changes(source, None)],
        **{name: evidence[name] for name in ("gates", "metrics", "missing")},
    }
    training = {"seconds": lineage.stage_record(trainer).seconds} if trainer else None
    return {**card_of(record), "training": training}


def with_measurements(card: Mapping[str, Any], measurements: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a card with what the stage measured: "training" and "explanations" (see `permutation_importance`)."""
    return {**card, **(measurements or {})}


def measurements_of(lineage: Lineage, model_id: int) -> dict[str, Any] | None:
    """Return what the stage measured of a model; None if it did not, or the files are freed."""
    for execution in reversed(lineage.consumers(model_id, Stage.MODEL_CARD)):
        for artifact in lineage.outputs(execution.id).get("model_card", []):
            if found := read(artifact.uri):
                return {name: found.get(name) for name in _MEASURED}
    return None


def read(folder: str | Path) -> dict[str, Any] | None:
    """Return the card in a folder; None if there is none that can be read."""
    try:
        found = json.loads((Path(folder) / JSON_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def as_html(card: Mapping[str, Any]) -> str:
    """Return a card as one page that needs no network."""
    return render("model_card.html", title=f"Model card: {card['title']}", it=card)


def as_markdown(card: Mapping[str, Any]) -> str:
    """Return a card as Markdown."""
    return render_markdown("model_card.md", title=f"Model card: {card['title']}", it=card)


def write(card: Mapping[str, Any], folder: str | Path) -> None:
    """Write a card into a folder that is there: as JSON, as Markdown and as HTML."""
    # As it will be read again, so that pages look the same from a file and from memory.
    text = json.dumps(card, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    plain = json.loads(text)
    for name, content in ((JSON_FILE, text), (MARKDOWN_FILE, as_markdown(plain)), (HTML_FILE, as_html(plain))):
        (Path(folder) / name).write_text(content, encoding="utf-8")
