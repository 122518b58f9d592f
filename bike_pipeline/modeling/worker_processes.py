"""Multi-worker training inside one Trainer stage: its workers as processes of this machine."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from absl import logging

from bike_pipeline import progress
from bike_pipeline.errors import BikePipelineError, ConfigurationError, StageError
from bike_pipeline.modeling import cluster as clusters
from bike_pipeline.modeling.train_worker import TrainingJob
from bike_pipeline.stages import Stage

WORKER = ("-m", "bike_pipeline.modeling.train_worker")
# Once one worker has failed, the others notice within this time, and what each has to say is known.
SETTLE_SECONDS = 3.0


class _Workers:
    def __init__(self, job: TrainingJob, members: Sequence[clusters.Cluster]) -> None:
        self.events: queue.Queue[tuple[int, dict[str, Any]]] = queue.Queue()
        self.processes: list[subprocess.Popen[str]] = []
        # Each would otherwise take every core for itself.
        threads = str(max(1, (os.cpu_count() or 1) // len(members)))
        for member in members:
            environment = {
                **os.environ,
                clusters.TF_CONFIG: member.tf_config(),
                "TF_NUM_INTRAOP_THREADS": threads,
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            }
            process = subprocess.Popen(
                [sys.executable, *WORKER, "--with-parent", "--job", job.model_dump_json()],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            self.processes.append(process)
            threading.Thread(target=self._read, args=(member.index, process.stdout), daemon=True).start()

    def _read(self, index: int, lines: Any) -> None:
        for line in lines:
            try:
                event = json.loads(line)
            except json.JSONDecodeError:
                event = None
            if isinstance(event, dict):
                self.events.put((index, event))
            else:
                logging.info("worker %d: %s", index, line.rstrip())

    def failed(self) -> list[int]:
        return [index for index, process in enumerate(self.processes) if process.poll()]

    def running(self) -> bool:
        return any(process.poll() is None for process in self.processes)

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def _error(parts: dict[str, Any]) -> BikePipelineError:
    kinds = {int(kind.exit_code): kind for kind in BikePipelineError.__subclasses__()}
    kind = kinds.get(parts["exit_code"], StageError)
    return kind(parts["what"], where=parts["where"], fix=parts["fix"])


def _root_cause(workers: _Workers, errors: dict[int, dict[str, Any]]) -> BikePipelineError:
    """Return the error that the others follow from: a worker that only lost another one knows it least."""
    failed = workers.failed()
    for index in failed:
        if index in errors and not errors[index].get("peer_lost"):
            return _error(errors[index]["error"])
    for index in failed:
        status = workers.processes[index].returncode
        if index not in errors:
            how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
            return StageError(
                f"worker {index} of {len(workers.processes)} ended by {how}",
                where=Stage.TRAINER,
                fix="its last lines are in the log; after mending, run again: finished stages are not repeated",
            )
    return _error(errors[failed[0]]["error"])


def run(job: TrainingJob) -> None:
    """Train in `job.training.workers` processes on this machine and return when the model is written.

    Progress is the chief's. If one worker fails, the others are ended, nothing of a model is left in its place, and the
    BikePipelineError is that worker's.
    """
    if os.environ.get(clusters.TF_CONFIG, "").strip():
        raise ConfigurationError(
            "it is set, and the workers that it names cannot know this run's artifacts",
            where=clusters.TF_CONFIG,
            fix="unset it to train in processes of this machine, or train by a TrainJob (docs/distributed-training.md)",
        )
    count = job.training.workers
    logging.info("Training in %d processes on this machine.", count)
    workers = _Workers(job, clusters.on_this_machine(count))
    errors: dict[int, dict[str, Any]] = {}
    deadline: float | None = None
    try:
        while workers.running() or not workers.events.empty():
            try:
                index, event = workers.events.get(timeout=0.2)
            except queue.Empty:
                pass
            else:
                if "error" in event:
                    errors[index] = event
                elif "progress" in event:
                    progress.report(event["progress"], f"{event['text']} ({count} workers)")
            if workers.failed():
                deadline = deadline or time.monotonic() + SETTLE_SECONDS
                if time.monotonic() > deadline:
                    break
        if workers.failed():
            raise _root_cause(workers, errors)
    finally:
        workers.end()
