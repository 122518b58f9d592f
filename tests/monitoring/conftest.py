"""A model server that is watched, once a session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.serving.running import Running, push, running_server, simple_model


@pytest.fixture(scope="session")
def watched_server(tmp_path_factory) -> Iterator[Running]:
    """A server of the simple model as version 1, for tests that only ask it and scrape it."""
    base = tmp_path_factory.mktemp("watched")
    push(base, simple_model(base.parent / "watched-model", 1.0), 1)
    with running_server(base, tmp_path_factory.mktemp("watched-workspace")) as running:
        yield running
