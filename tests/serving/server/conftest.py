"""A served model with an export, and one server that is only asked, once a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.running import Running, push, running_server, with_export


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
