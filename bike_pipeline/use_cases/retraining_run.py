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
    from bike_pipeline.lineage.store.entities import StageRecord
    from bike_pipeline.settings import Settings


def run_in_cluster(
    settings: Settings, name: str, begun: str, begin: Callable[[str], None], finished: Callable[[str, str], None]
) -> dict[str, Any]:
    """Run the pipeline in Kubeflow Pipelines, and wait for its end; return what `run_apart` does.

    What it came to is read in the cluster's ML Metadata, whose name of a run is that of Kubeflow Pipelines.

    Args:
        settings: the settings, which are compiled into what runs.
        name: what the run is called there, and nothing else is: one that goes on under it is taken for this one.
        begun: a run that a process which died had submitted; "" for none.
        begin: called with the run's id as soon as it is known.
        finished: as of `run_apart`, but at the end.

    Raises:
        ClusterError: the cluster cannot be reached or refuses.
        DataGateError: the data gate refused the newest span.
        StageError: another stage failed.
    """
    from bike_pipeline.lineage.queries.evidence import decisions_of
    from bike_pipeline.lineage.store.metadata_store import prop
    from bike_pipeline.stages import Stage
    from bike_pipeline.use_cases import cluster
    from bike_pipeline.use_cases.lineage import lineage_of

    run_id = begun or cluster.submit(settings, name=name, once=True).run.run_id
    begin(run_id)
    try:
        cluster.wait_for(settings, run_id)
    except errors.StageError:
        for stage in _stages(settings, run_id):
            if stage.name == Stage.DATA_GATE and stage.state == "failed":
                raise errors.DataGateError(stage.error or "the data gate refused it", where=f"run {run_id}") from None
        raise
    lineage, pushed, why = lineage_of(settings, cluster=True), None, ""
    for stage in _stages(settings, run_id):
        finished(stage.name, stage.state)
        outputs = lineage.outputs(stage.execution_id)
        for evaluation in outputs.get("evaluation", []):
            why = _why_not(decisions_of(evaluation) or {})
        for found in outputs.get("pushed_model", []):
            pushed = int(prop(found, "pushed_version")) if prop(found, "pushed") == 1 else None
    return {"run_id": run_id, "pushed_version": pushed, "why": why, "cpu_seconds": None}


def _stages(settings: Settings, run_id: str) -> tuple[StageRecord, ...]:
    from bike_pipeline.use_cases.lineage import runs

    found = next((run.stages for run in runs(settings, cluster=True) if run.run_id == run_id), None)
    if found is None:
        what = f"run {run_id} has ended, and is not in the ML Metadata of the cluster"
        raise errors.MetadataError(what, where=settings.kubeflow.metadata.address, fix="check kubeflow.metadata")
    return found


def _why_not(decisions: dict[str, Any]) -> str:
    failed = [one["reason"] for one in decisions.get("decisions", []) if not one["passed"] and one["binding"]]
    return f"not blessed: {failed[0]}{errors.and_more(failed)}" if failed else ""


class _StageReporter(RunObserver):
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
        result = run(settings, runner=message["runner"], observer=_StageReporter(tell))
    except errors.BikePipelineError as error:
        traceback.print_exc()
        kind = type(error).__name__
        tell({"error": error.what, "where": error.where, "fix": error.fix, "kind": kind})
        return error.exit_code
    times = os.times()
    tell(
        {
            "run_id": result.run_id,
            "pushed_version": result.pushed_version,
            "why": _why_not(result.decisions),
            "cpu_seconds": round(times.user + times.system + times.children_user + times.children_system, 1),
        }
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
