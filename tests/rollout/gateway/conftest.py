"""Models whose answers tell which of them answered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.running import Running, push, running_server, simple_model, with_export


@pytest.fixture(scope="session")
def simple_models(tmp_path_factory) -> dict[int, Path]:
    """Models by their scale, each with a LiteRT export."""
    folder = tmp_path_factory.mktemp("simple")
    return {
        scale: with_export(simple_model(folder / f"plain-{scale}", float(scale)), folder / f"export-{scale}")
        for scale in (1, 2, 3)
    }


@pytest.fixture(scope="session")
def server(simple_models, tmp_path_factory) -> Iterator[Running]:
    """A server of version 1 of scale 1, for gateways that are attacked."""
    folder = tmp_path_factory.mktemp("attacked")
    push(folder / "models", simple_models[1], 1)
    with running_server(folder / "models", folder / "workspace") as running:
        yield running
