"""A run of the pipeline in a process of its own: it has the code that is on the disk now, and gives all memory back.

A message comes in on standard input; a line of JSON goes out for each stage, and one for what the run came to. The
input stays open: its end means that whoever started the run is gone, and the run ends too, so that the workspace is
free.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bike_pipeline import errors
from bike_pipeline.run_events import RunObserver, StageResult

if TYPE_CHECKING:
    from bike_pipeline.settings import Settings


class _Told(RunObserver):
    def __init__(self, tell: Callable[[dict[str, Any]], None]) -> None:
        self._tell = tell

    def finished(self, result: StageResult) -> None:
        self._tell({"stage": result.name, "state": result.state, "outcome": result.outcome})


def run_apart(settings: Settings, runner: str, finished: Callable[[str, str], None]) -> dict[str, Any]:
    """Run the pipeline in a process of its own; return `run_id`, `pushed_version`, `why` and `cpu_seconds`.

    `finished` is called with the name and the state of each stage that ends. What the run logs goes to the file of
    this process's standard error.

    Raises:
        BikePipelineError: what the run raised; a StageError if its process ended without a word.
    """
    message = json.dumps({"settings": settings.model_dump(mode="json"), "runner": runner})
    with subprocess.Popen(
        [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(message + "\n")
            process.stdin.flush()
            answer: dict[str, Any] = {}
            for line in process.stdout:
                answer = json.loads(line)
                if "stage" in answer:
                    finished(answer["stage"], answer["state"])
        except BaseException:
            process.terminate()
            raise
    if "error" in answer:
        kind: type[errors.BikePipelineError] = getattr(errors, answer["kind"], errors.StageError)
        raise kind(answer["error"], where=answer["where"], fix=answer["fix"])
    if "run_id" not in answer:
        raise errors.StageError(
            f"the process of the run ended with exit code {process.returncode}",
            fix="the log says more; the next attempt goes on from what is finished",
        )
    return answer


def _end_with_parent() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> int:
    """Read a message, run the pipeline, and print how it goes; return the process's exit code."""
    from bike_pipeline.settings import Settings
    from bike_pipeline.signals import raise_on_termination
    from bike_pipeline.use_cases.run import run

    raise_on_termination()
    # Libraries print; the answers must stay alone on standard output.
    answers, sys.stdout = sys.stdout, sys.stderr

    def tell(content: dict[str, Any]) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    message = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        settings = Settings.model_validate(message["settings"])
        result = run(settings, runner=message["runner"], observer=_Told(tell))
    except errors.BikePipelineError as error:
        traceback.print_exc()
        kind = type(error).__name__
        tell({"error": error.what, "where": error.where, "fix": error.fix, "kind": kind})
        return error.exit_code
    decisions: Any = result.decisions.get("decisions", [])
    failed = [one["reason"] for one in decisions if not one["passed"] and one["binding"]]
    times = os.times()
    tell(
        {
            "run_id": result.run_id,
            "pushed_version": result.pushed_version,
            "why": f"not blessed: {failed[0]}{errors.and_more(failed)}" if failed else "",
            "cpu_seconds": round(times.user + times.system + times.children_user + times.children_system, 1),
        }
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
