"""The repository of docs/feast.md, made by a real Feast in an environment of its own."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGE = ROOT / "docs" / "feast.md"


def python() -> str:
    """Return the interpreter of Feast's environment; if `FEAST` names it, it must be there."""
    place = Path(os.environ.get("FEAST", ROOT / ".feast")).absolute() / "bin" / "python"
    if not place.exists() and "FEAST" not in os.environ:
        pytest.skip("the environment .feast is not there: run `make test-feast`")
    return str(place)


def blocks(language: str) -> list[str]:
    """Return the blocks of the page."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def call(program: Path | str, *arguments: object, folder: Path) -> str:
    """Run a file, or code, with Feast's Python; return what it prints."""
    code = [str(program)] if isinstance(program, Path) else ["-c", program]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [python(), *code, *map(str, arguments)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def make(folder: Path, more: str = "", apply: str = "city, hour, weather, training, past_weather") -> None:
    """Write the repository of the page beside the data that are there, and more definitions, and apply it."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (settings,), (definitions, *_) = blocks("yaml"), blocks("python")
    (folder / "feature_store.yaml").write_text(settings, encoding="utf-8")
    (folder / "definitions.py").write_text(definitions + more, encoding="utf-8")
    call(
        f"from feast import FeatureStore\nfrom definitions import *\nFeatureStore(repo_path='.').apply([{apply}])",
        folder=folder,
    )
