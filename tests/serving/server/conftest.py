"""A served model with an export, and one server that is only asked, once a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.running import Running, push, running_server, simple_model, with_export


@pytest.fixture(scope="session")
def servable_model(exported, tmp_path_factory) -> Path:
    """A SavedModel with a LiteRT export that passed parity."""
    return with_export(exported.path, tmp_path_factory.mktemp("servable") / "model")


@pytest.fixture(scope="session")
def model_server(servable_model, tmp_path_factory) -> Iterator[Running]:
    """A server of version 1, for tests that change nothing."""
    base = tmp_path_factory.mktemp("served")
    push(base, servable_model, 1)
    with running_server(base, tmp_path_factory.mktemp("served-workspace")) as running:
        yield running


@pytest.fixture(scope="session")
def simple_models(tmp_path_factory) -> dict[int, Path]:
    """Two models by their scale, each with a LiteRT export."""
    folder = tmp_path_factory.mktemp("simple")
    return {
        scale: with_export(simple_model(folder / f"plain-{scale}", float(scale)), folder / f"export-{scale}")
        for scale in (1, 2)
    }


@pytest.fixture(scope="session")
def simple_server(simple_models, tmp_path_factory) -> Iterator[Running]:
    """A server of the simple model of scale 1 as version 1, for tests that change nothing."""
    base = tmp_path_factory.mktemp("simple-served")
    push(base, simple_models[1], 1)
    with running_server(base, tmp_path_factory.mktemp("simple-workspace")) as running:
        yield running


@pytest.fixture
def server(simple_models, tmp_path):
    """A server of version 1 of scale 1, for tests that change it."""
    push(tmp_path / "models", simple_models[1], 1)
    settings = ("serving.server.poll_seconds=0.05", "serving.server.load_retry_seconds=1000")
    with running_server(tmp_path / "models", tmp_path / "workspace", *settings) as running:
        yield running
