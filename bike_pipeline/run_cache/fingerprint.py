"""What a run depends on, as one hash for each part, from light modules only."""

from __future__ import annotations

import hashlib
import json
import sys
import sysconfig
from pathlib import Path
from typing import Any

from bike_pipeline.errors import BikePipelineError
from bike_pipeline.settings import PROJECT_ROOT, Settings
from bike_pipeline.source_hash import PACKAGE_ROOT, tree_hash

Parts = dict[str, str]


def inputs_of(settings: Settings, package: Path = PACKAGE_ROOT) -> Parts | None:
    """Return the hashes of what a run would read now; None where that cannot be told, so that nothing is unchanged.

    Args:
        settings: the settings of the run.
        package: the folder of this package's source.

    Returns:
        A hash by part: "settings" (without Beam's flags and what is tracked, which change no result) with the places
        that follow from them, relative to the workspace and this checkout, which may be moved; "source" of this
        package, "runners", "environment" (the interpreter and every installed distribution), "schema", and "window"
        (the spans, versions and content hashes that ExampleGen would read, and their files hold).
    """
    from bike_pipeline.data.spans import SpanStore

    try:
        store = SpanStore(settings.store_uri)
        window = store.window(settings.data.history_spans)
        for entry in window:
            store.check_files(entry.span, entry.version)
        return {
            "settings": _hash(
                placeless(
                    settings,
                    settings.model_dump(mode="json", exclude={"beam", "tracking", "workspace"}),
                    settings.pipeline_root,
                    settings.store_uri,
                    settings.serving_path,
                    str(settings.schema_path),
                )
            ),
            "source": tree_hash(package),
            # In a checkout this folder is a link, which a look through the package does not follow.
            "runners": tree_hash(package / "runners"),
            "environment": _hash(sys.version, _distributions()),
            "schema": hashlib.sha256(settings.schema_path.read_bytes()).hexdigest(),
            "window": _hash([version.identity for version in window]),
        }
    except (BikePipelineError, OSError):
        # The ordinary way meets the same obstacle, and says what it is and how to mend it.
        return None


def placeless(settings: Settings, *values: Any) -> str:
    """Return values as JSON in which neither the workspace's place nor that of this checkout stands."""
    text = json.dumps(values, sort_keys=True)
    for place, mark in ((settings.workspace_path, "workspace:/"), (PROJECT_ROOT, "project:/")):
        text = text.replace(json.dumps(f"{place}/")[1:-1], mark)
    return text


def _hash(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _distributions() -> list[str]:
    """Return name and version of every installed distribution; their folders' names say both."""
    places = {Path(sysconfig.get_paths()[kind]) for kind in ("purelib", "platlib")}
    return sorted({found.name for place in places for found in place.glob("*.dist-info")})
