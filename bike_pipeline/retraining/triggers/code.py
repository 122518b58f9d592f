"""Code: the source that stages run, the settings that matter to them or the schema are not those of the served model.

A change is from the model that serves to what is here, so that going back to earlier code is a change of its own, and a
candidate that was refused is not trained again and again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from bike_pipeline.retraining.events import CODE, Event, digest_of
from bike_pipeline.retraining.triggers import Look, Note

if TYPE_CHECKING:
    from bike_pipeline.retraining.ledger import Ledger
    from bike_pipeline.settings import Settings

_SOURCE = "code and settings"
# What stages read of the settings. Where things stand, who is told and who serves changes no model.
_SECTIONS = ("seed", "data", "gate", "training", "tuning", "evaluation", "exporting")
_PLACES = ("store", "in_memory_rows")


class Code:
    """Compares what made the served model with what is here."""

    name: ClassVar[str] = CODE
    every_seconds = 10.0

    def __init__(self, settings: Settings, ledger: Ledger) -> None:  # noqa: ARG002 (every trigger takes both)
        """Compare with these settings, and with the source files as they are at each look."""
        self._settings = settings

    def look(self) -> Look:
        """Return an event where something is not as it was."""
        from bike_pipeline.lineage.queries.history import History
        from bike_pipeline.lineage.queries.model_lookup import find_model
        from bike_pipeline.lineage.queries.reproducibility import origin_of
        from bike_pipeline.lineage.records.run_record import source_files
        from bike_pipeline.lineage.store.connection import open_at
        from bike_pipeline.lineage.store.metadata_store import Lineage
        from bike_pipeline.model_registry import ModelRegistry

        settings = self._settings
        if ModelRegistry(settings.serving_path).serving() is None:
            return Look(notes=(Note(_SOURCE, "no model serves yet, so there is none to compare with"),))
        history = History(Lineage(open_at(settings.metadata_address)))
        origin = origin_of(history, find_model(history, settings.serving_path, None).model_id)
        model = f"model {origin.model_id}"
        if origin.source is None:
            return Look(notes=(Note(_SOURCE, f"what made {model} is not on record, so nothing can be compared"),))
        files, here = source_files(), _relevant(settings.model_dump(mode="json"))
        schema = hashlib.sha256(settings.schema_path.read_bytes()).hexdigest()
        then = _relevant(origin.source.settings)
        changed = _changed_files(origin.source.code.files, files)
        changed += [f"settings: {name}" for name in _SECTIONS if here[name] != then[name]]
        changed += ["the schema"] if schema != origin.source.schema_sha256 else []
        if not changed:
            return Look(notes=(Note(_SOURCE, f"what stages run and read is what made {model}"),))
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        words = f"changed since {model}: {', '.join(changed[:3])}{more}"
        content = digest_of(*(f"{name} {files.get(name, '')}" for name in changed), schema, repr(here))
        event = Event(self.name, _SOURCE, digest_of(str(origin.model_id), content), changed[0], words)
        return Look((event,), (Note(_SOURCE, words),))


def _relevant(settings: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: settings.get(name) for name in _SECTIONS}
    if isinstance(kept["data"], Mapping):
        kept["data"] = {key: value for key, value in kept["data"].items() if key not in _PLACES}
    return kept


def _changed_files(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the files that differ and that stages run, by their imports; a lost one differs where it was imported."""
    from bike_pipeline.source_hash import SourceTree

    differ = sorted(name for name in now if before.get(name) != now[name])
    if not differ:
        return []
    places = {module.replace(".", "/") for module in SourceTree().modules("bike_pipeline.pipeline")}
    return [name for name in differ if name.removesuffix(".py").removesuffix("/__init__") in places]
