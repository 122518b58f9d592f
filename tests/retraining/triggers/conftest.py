"""Settings of a workspace of its own, and what a loop does with a trigger."""

import os
import time

import pytest

from bike_pipeline.settings import load_settings


@pytest.fixture
def settings_of(tmp_path):
    def made(**values):
        named = [f"retraining.{name.replace('__', '.')}={value}" for name, value in values.items()]
        return load_settings(None, (f"workspace={tmp_path / 'workspace'}", *named))

    return made


@pytest.fixture
def aged(monkeypatch):
    """Let files that were written now have been there for long."""
    now = time.time

    def age(seconds=3600.0):
        monkeypatch.setattr(time, "time", lambda: now() + seconds)

    return age


def written(folder, name, content="hr,cnt\n1,2\n", at=None):
    path = folder / name
    path.write_text(content) if isinstance(content, str) else path.write_bytes(content)
    if at is not None:
        os.utime(path, (at, at))
    return path
