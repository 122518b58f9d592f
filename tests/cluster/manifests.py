"""The manifests as kustomize puts them together, and the others as they stand."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.control_plane import program

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "kubernetes"
OVERLAYS = ("one-node", "cluster", "flagger")
# Applied alone, for a purpose.
SINGLE = tuple(sorted(path.name for path in FOLDER.glob("*.yaml")))


def built(folder: Path) -> str:
    """Return what kustomize makes of a folder."""
    done = subprocess.run([program("kustomize"), "build", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def _text(name: str) -> str:
    return built(FOLDER / "overlays" / name) if name in OVERLAYS else (FOLDER / name).read_text(encoding="utf-8")


def objects(name: str) -> list[dict[str, Any]]:
    """Return the objects of an overlay, or of a single file, each a copy of its own."""
    return [one for one in yaml.safe_load_all(_text(name)) if one]


def one_of(name: str, kind: str, called: str) -> dict[str, Any]:
    """Return one object of an overlay or file."""
    [chosen] = [one for one in objects(name) if (one["kind"], one["metadata"]["name"]) == (kind, called)]
    return chosen
