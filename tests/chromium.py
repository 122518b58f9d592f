"""Chromium, installed or fetched by `make browser`, for the tests that look at pages."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

import browser


def found() -> tuple[Path, Mapping[str, str]]:
    """Return its program and the environment that it runs in; skip the test, saying why, where there is none."""
    program = browser.find()
    if program is None:
        pytest.skip(browser.ABSENT)
    return program
