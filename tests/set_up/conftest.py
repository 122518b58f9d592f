"""A PATH with nothing on it."""

from __future__ import annotations

import pytest


@pytest.fixture
def path(tmp_path, monkeypatch):
    folder = tmp_path / "path"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CXX", raising=False)
    return folder
