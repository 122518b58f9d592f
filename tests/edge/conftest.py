"""What the tests of bundles, channels and devices share: a small exported model, a key, bundles of two versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from bike_pipeline.edge import bundle, updates
from bike_pipeline.edge.bundle import Bundle
from tests.edge import making
from tests.edge.making import Key


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small model and its exports."""
    folder = tmp_path_factory.mktemp("small_model")
    making.export_small_model(folder)
    return folder


@pytest.fixture(scope="session")
def key() -> making.Key:
    """The key that signs in these tests."""
    return making.new_key()


@pytest.fixture(scope="session")
def versions(small_model: Path, key: making.Key, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Base path of a model with two pushed versions, 1 and 2."""
    base = tmp_path_factory.mktemp("serving") / "bike_demand"
    for version in (1, 2):
        making.push(small_model, base, version, key)
    return base


@pytest.fixture(scope="session")
def bundles(versions: Path, key: making.Key) -> dict[int, Bundle]:
    """The bundles of both versions."""
    return {version: making.build(versions / str(version), key) for version in (1, 2)}


@pytest.fixture(scope="module")
def unpacked(bundles: dict[int, bundle.Bundle], key: Key, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "bundle.tar").write_bytes(bundles[1].archive)
    updates.extract(folder / "bundle.tar", folder / "1", key.public)
    return folder / "1"
