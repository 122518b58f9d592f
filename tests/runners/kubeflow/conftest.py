"""What the tests of the Kubeflow runner share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def halves(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The two halves of the embedded data as upload files."""
    from bike_pipeline.data.embedded_dataset import split_demo

    return split_demo(tmp_path_factory.mktemp("uploads"))
