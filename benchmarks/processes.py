"""Whole processes, timed: wall and CPU time with all children, and peak memory."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Timing:
    """One process.

    Attributes:
        wall: seconds from start to end.
        cpu: CPU seconds, children included.
        memory: largest resident memory in MB.
        began: when it started, in seconds since the epoch.
    """

    wall: float
    cpu: float
    memory: float
    began: float = 0.0


def timed(command: Sequence[str], log: Path, codes: Sequence[int] = (0,)) -> Timing:
    """Run a command to its end, with its output in `log` and one of the exit codes.

    Raises:
        SystemExit: it failed; the log is named and kept.
    """
    with log.open("ab") as output:
        began_at, began = time.time(), time.monotonic()
        process = subprocess.Popen(
            command, stdout=output, stderr=output, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in codes:
        raise SystemExit(f"error: `{' '.join(command[:4])} …` ended with {process.returncode}; its output: {log}")
    return Timing(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, began_at)
