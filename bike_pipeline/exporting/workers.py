"""Formats in processes of their own: whatever a library does there, the caller gets an answer or an error.

One process, `python -m bike_pipeline.exporting.workers`, imports once what every job needs, TensorFlow not among it,
and forks for each job. A job is {"verb": "export" or "measure", "format": name, "folder": where the format's files are,
"rows": folder of the rows, "source": folder of the SavedModel, "seconds": how long it may take, "answer": the file to
write}. The answer appears whole or not at all: a process that dies leaves none.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from bike_pipeline.errors import BikePipelineError, ExportError
from bike_pipeline.exporting.acceptance.measurements import measure
from bike_pipeline.exporting.formats import registry
from bike_pipeline.exporting.formats.base import Columns, Format, Source

GOLDEN, EVALUATED, CALIBRATION = "golden", "evaluated", "calibration"
Verb = Literal["export", "measure"]
_LAST_WORDS = 300
# From linux/prctl.h: the signal that a process gets when its parent dies.
_PR_SET_PDEATHSIG = 1


def write_columns(folder: Path, name: str, columns: Columns) -> None:
    """Keep rows where a worker finds them."""
    np.savez(folder / f"{name}.npz", allow_pickle=False, **columns)


def read_columns(folder: Path, name: str) -> dict[str, Any]:
    """Return rows that were kept."""
    with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
        return {column: file[column] for column in file.files}


class Workers:
    """Takes jobs at any time and works them off one after the other, beside this process."""

    def __init__(self, folder: Path, seconds: float) -> None:
        """Start the process that forks; answers and what jobs print are kept in `folder`. A job may take `seconds`."""
        self._folder, self._seconds = folder, seconds
        self._statuses: dict[str, int] = {}
        # A format answers on one thread; so does what numpy calls.
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        path = os.pathsep.join(path for path in sys.path if path)
        with (folder / "workers.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bike_pipeline.exporting.workers"],
                env={"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, **threads, "PYTHONPATH": path},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End it, whatever it is doing."""
        self._process.kill()
        self._process.communicate()

    def submit(self, name: str, verb: Verb, format_: Format, folder: Path, source: Source) -> None:
        """Hand over a job on a format's files in `folder` under a name of its own; its rows are in `source.shared`."""
        assert self._process.stdin
        job = {"verb": verb, "format": format_.name, "folder": folder, "rows": source.shared}
        job |= {"source": source.saved_model, "seconds": self._seconds, "answer": self._folder / f"{name}.json"}
        try:
            self._process.stdin.write(json.dumps(job, default=str) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._gone() from None

    def result(self, name: str) -> dict[str, Any]:
        """Wait for a job that was submitted, and return its answer.

        Raises:
            BikePipelineError: as the job raised it.
            ExportError: the process died, gave no answer or took too long.
        """
        assert self._process.stdout
        while name not in self._statuses:
            line = self._process.stdout.readline()
            if not line:
                raise self._gone()
            ended = json.loads(line)
            self._statuses[ended["name"]] = ended["status"]
        path = self._folder / f"{name}.json"
        if not path.is_file():
            raise ExportError(self._death(name), where=name, fix="the run's log holds all that it printed")
        answer: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if "error" in answer:
            parts = answer["error"]
            kinds = {int(kind.exit_code): kind for kind in BikePipelineError.__subclasses__()}
            raise kinds.get(parts["exit_code"], ExportError)(parts["what"], where=parts["where"], fix=parts["fix"])
        return answer

    def output(self, name: str) -> str:
        """Return what a job wrote on its standard streams."""
        path = self._folder / f"{name}.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""

    def _death(self, name: str) -> str:
        status = self._statuses[name]
        if status == -signal.SIGALRM:
            return f"the process did not end within {self._seconds:g} s, which exporting.timeout allows"
        how = f"of {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        lines = [line for line in self.output(name).splitlines() if line.strip()]
        return f"the process ended {how}" + (f" ({lines[-1].strip()[:_LAST_WORDS]})" if lines else "")

    def _gone(self) -> ExportError:
        log = (self._folder / "workers.log").read_text(encoding="utf-8", errors="replace").strip()
        last = log.splitlines()[-1][:_LAST_WORDS] if log else f"status {self._process.wait()}"
        return ExportError(f"the process of all formats ended ({last})", where="exporting", fix="run again")


def work(job: Mapping[str, Any]) -> dict[str, Any]:
    """Do one job and return the answer as plain values."""
    format_ = registry.format_of(job["format"])
    folder, rows = Path(job["folder"]), Path(job["rows"])
    if job["verb"] == "export":
        format_.export(Source(Path(job["source"]), read_columns(rows, CALIBRATION), shared=rows), folder)
        return {}
    golden, evaluated = (read_columns(rows, name) for name in (GOLDEN, EVALUATED))
    measured = measure(lambda: format_.load(folder), golden, evaluated)
    answers = {**vars(measured)}
    speed = answers.pop("speed")
    write_columns(rows, f"{format_.name}-answers", answers)
    return {**vars(speed), "tensorflow": "tensorflow" in sys.modules}


def _work_alone(job: Mapping[str, Any], parent: int) -> None:
    """Do one job in this process, which is a job's own, and leave the answer; never comes back."""
    status = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            return
        answer = Path(job["answer"])
        log = os.open(answer.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        for stream in (1, 2):
            os.dup2(log, stream)
        # Its default ends the process, whatever a library is doing.
        signal.setitimer(signal.ITIMER_REAL, job["seconds"])
        try:
            content = work(job)
        except BikePipelineError as error:
            parts = {"what": error.what, "where": error.where, "fix": error.fix}
            content = {"error": {"exit_code": int(error.exit_code), **parts}}
        aside = answer.with_suffix(".writing")
        aside.write_text(json.dumps(content), encoding="utf-8")
        aside.replace(answer)
        status = 0
    except BaseException:  # noqa: BLE001 (the fork ends here; the caller reads what it wrote last)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    """Fork for each job on standard input, one after the other, and tell how each ended."""
    parent = os.getpid()
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if not child:
            _work_alone(job, parent)
        _, status = os.waitpid(child, 0)
        name = Path(job["answer"]).stem
        sys.stdout.write(json.dumps({"name": name, "status": os.waitstatus_to_exitcode(status)}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
