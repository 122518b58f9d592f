"""Models whose answers tell which of them answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.serving.running import simple_model, with_export


@pytest.fixture(scope="session")
def simple_models(tmp_path_factory) -> dict[int, Path]:
    """Models by their scale, each with a LiteRT export."""
    folder = tmp_path_factory.mktemp("simple")
    return {
        scale: with_export(simple_model(folder / f"plain-{scale}", float(scale)), folder / f"export-{scale}")
        for scale in (1, 2, 3)
    }
