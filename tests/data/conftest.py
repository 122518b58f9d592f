"""A span store with nothing in it."""

from __future__ import annotations

import pytest

from bike_pipeline.data.spans import SpanStore


@pytest.fixture
def store(tmp_path):
    return SpanStore(str(tmp_path / "spans"))
