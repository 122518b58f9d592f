"""One run at a time on a workspace, and nothing of a killed run is left as running."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ml_metadata.proto import metadata_store_pb2 as pb

from bike_pipeline.errors import BusyError, StageError, StorageError
from bike_pipeline.lineage.store.metadata_store import Lineage
from bike_pipeline.lineage.store.writing import close_interrupted
from bike_pipeline.runners.pipeline_run import workspace_lock
from tests.recording import Recorder

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import sys
from pathlib import Path
from bike_pipeline.runners.pipeline_run import workspace_lock
with workspace_lock(Path(sys.argv[1]), False):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_by_another_process(workspace: Path) -> Iterator[subprocess.Popen[str]]:
    """Let another process hold the workspace; it lets go when its input is closed."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(workspace)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield holder
    finally:
        holder.kill()
        holder.communicate()


def test_a_second_run_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    workspace = tmp_path / "new" / "workspace"
    with (
        held_by_another_process(workspace),
        pytest.raises(BusyError, match="another run is working") as refused,
        workspace_lock(workspace, wait=False),
    ):
        pytest.fail("two runs at once")
    assert "--wait" in str(refused.value)
    with workspace_lock(workspace, wait=False):
        pass  # The holder was killed, and its lock died with it.


def test_a_second_run_that_waits_goes_on_after_the_first(tmp_path: Path) -> None:
    begun = threading.Event()

    def second() -> None:
        with workspace_lock(tmp_path, wait=True):
            begun.set()

    with held_by_another_process(tmp_path) as holder:
        thread = threading.Thread(target=second)
        thread.start()
        assert not begun.wait(0.5)
        assert holder.stdin is not None
        holder.stdin.close()
        holder.stdin = None
        assert begun.wait(60)
        thread.join()


def test_the_workspace_is_free_after_a_failure(tmp_path: Path) -> None:
    with pytest.raises(StageError), workspace_lock(tmp_path, wait=False):
        raise StageError("the stage failed")
    with workspace_lock(tmp_path, wait=False):
        pass


def test_a_workspace_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(StorageError, match="cannot lock it: file exists"),
        workspace_lock(tmp_path / "file", False),
    ):
        pytest.fail("a file was taken for a workspace")


def test_only_what_was_running_is_closed(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "metadata.sqlite")
    states = [pb.Execution.RUNNING, pb.Execution.COMPLETE, pb.Execution.FAILED, pb.Execution.CACHED]
    for state in states:
        recorder.execution("Trainer", "killed", state=state)
    recorder.execution("Trainer", "of another workspace", state=pb.Execution.RUNNING)
    close_interrupted(Lineage(recorder.store), "")
    close_interrupted(Lineage(recorder.store), "never recorded")
    close_interrupted(Lineage(recorder.store), "killed")
    found = sorted(recorder.store.get_executions(), key=lambda execution: execution.id)
    expected = [pb.Execution.CANCELED, *states[1:], pb.Execution.RUNNING]
    assert [execution.last_known_state for execution in found] == expected
