"""Formats in processes of their own: whatever a library does there, the caller gets an answer or an error."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bike_pipeline.errors import BikePipelineError, ExportError

_WORKER = ("-m", "bike_pipeline.exporting.worker")
_LAST_WORDS = 300


class WaitingProcess:
    """A process that is up and has imported what every job needs; it takes one job.

    It is started early, so that its start costs nobody time and is no part of what is measured in it.
    """

    def __init__(self, folder: Path, name: str) -> None:
        """Start it.

        Args:
            folder: where answers and what it says are kept.
            name: unique in that folder.
        """
        self._answer = folder / f"{name}.json"
        self._said = folder / f"{name}.log"
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                [sys.executable, *_WORKER],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=said,
                text=True,
            )

    def __enter__(self) -> Self:
        """Return the process."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()

    def do(self, job: dict[str, str], seconds: float) -> dict[str, Any]:
        """Hand it its job and return the answer.

        Args:
            job: see `worker`; the file of the answer is added.
            seconds: how long it may take.

        Raises:
            BikePipelineError: as the job raised it.
            ExportError: the process died, gave no answer or took too long.
        """
        try:
            self._process.communicate(json.dumps({**job, "answer": str(self._answer)}) + "\n", timeout=seconds)
        except subprocess.TimeoutExpired:
            raise ExportError(
                f"the process did not end within {seconds:g} s", where=job["format"], fix="see exporting.timeout"
            ) from None
        if not self._answer.is_file():
            raise ExportError(self._death(), where=job["format"], fix="the run's log holds all that it said")
        answer: dict[str, Any] = json.loads(self._answer.read_text(encoding="utf-8"))
        if "error" in answer:
            raise _error(answer["error"])
        return answer

    def said(self) -> str:
        """Return what it wrote on its standard streams."""
        return self._said.read_text(encoding="utf-8", errors="replace")

    def _death(self) -> str:
        status = self._process.returncode
        how = f"of {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        lines = [line for line in self.said().splitlines() if line.strip()]
        return f"the process ended {how}" + (f" ({lines[-1].strip()[:_LAST_WORDS]})" if lines else "")


def _error(parts: dict[str, Any]) -> BikePipelineError:
    kinds = {int(kind.exit_code): kind for kind in BikePipelineError.__subclasses__()}
    return kinds.get(parts["exit_code"], ExportError)(parts["what"], where=parts["where"], fix=parts["fix"])
