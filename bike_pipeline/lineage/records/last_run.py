"""The name of the last run that this workspace began: other workspaces may write to the same metadata store."""

from __future__ import annotations

import os
from pathlib import Path

_FILE = "last-run"


def last_run(workspace: Path) -> str:
    """Return the run's name in ML Metadata; "" if no run began here yet, or where the note of it is damaged."""
    try:
        return (workspace / _FILE).read_text(encoding="utf-8").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return ""


def record_last_run(workspace: Path, run_id: str) -> None:
    """Note that a run begins, before its first stage, so that a killed one can be told from those of others."""
    fresh = workspace / f".{_FILE}-{os.getpid()}"
    fresh.write_text(f"{run_id}\n", encoding="utf-8")
    fresh.replace(workspace / _FILE)
