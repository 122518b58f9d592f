"""One run at a time on a workspace; what fails has one name, and is written beside the stage that failed."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ml_metadata.proto import metadata_store_pb2 as pb

from bike_pipeline.errors import BusyError, DataError, StageError, StorageError
from bike_pipeline.lineage.store import Lineage
from runners.local_runner import _close_interrupted, _failure, _workspace_lock, _write_error
from tests.recording import Recorder

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import sys
from pathlib import Path
from runners.local_runner import _workspace_lock
with _workspace_lock(Path(sys.argv[1]), False):
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
        _workspace_lock(workspace, wait=False),
    ):
        pytest.fail("two runs at once")
    assert "--wait" in str(refused.value)
    with _workspace_lock(workspace, wait=False):
        pass  # The holder was killed, and its lock died with it.


def test_a_second_run_that_waits_goes_on_after_the_first(tmp_path: Path) -> None:
    begun = threading.Event()

    def second() -> None:
        with _workspace_lock(tmp_path, wait=True):
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
    with pytest.raises(StageError), _workspace_lock(tmp_path, wait=False):
        raise StageError("the stage failed")
    with _workspace_lock(tmp_path, wait=False):
        pass


def test_a_workspace_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write to the workspace"), _workspace_lock(tmp_path / "file", False):
        pytest.fail("a file was taken for a workspace")


def chained(cause: BaseException, context_only: bool = False) -> BaseException:
    """Return what a library raises because of `cause`, two errors deep."""
    try:
        try:
            raise cause
        except type(cause) as inner:
            if context_only:
                raise KeyError("while handling")  # noqa: B904 - the implicit chain is what is tested
            raise ValueError("in between") from inner
    except (ValueError, KeyError) as middle:
        outer = RuntimeError("Beam says: the bundle failed")
        outer.__cause__ = middle
        return outer


@pytest.mark.parametrize("context_only", [False, True])
def test_our_own_error_is_kept_however_deep_it_lies(context_only: bool) -> None:
    ours = DataError("the file was changed", where="data.csv", fix="restore it")
    assert _failure("CsvExampleGen", chained(ours, context_only)) is ours
    assert _failure("CsvExampleGen", ours) is ours


@pytest.mark.parametrize("context_only", [False, True])
def test_what_the_operating_system_refused_is_a_storage_error(context_only: bool) -> None:
    cause = OSError(28, "No space left on device", "artifacts/model")
    failure = _failure("Trainer", chained(cause, context_only))
    assert isinstance(failure, StorageError)
    assert (failure.what, failure.where) == ("No space left on device", "Trainer: artifacts/model")
    assert "finished stages are not repeated" in failure.fix


@pytest.mark.parametrize(
    "text",
    [
        "artifacts/x; No space left on device",
        "artifacts/x; Permission denied",
        "mlmd: database or disk is full",
        "mlmd: attempt to write a readonly database",
    ],
)
def test_a_library_that_puts_it_into_words_of_its_own(text: str) -> None:
    failure = _failure("Trainer", RuntimeError(text))
    assert isinstance(failure, StorageError)
    assert failure.what == text


def test_anything_else_is_the_stages_error_with_its_first_line() -> None:
    failure = _failure("Trainer", ValueError("\nshapes (2,) and (3,) differ\nfurther lines"))
    assert isinstance(failure, StageError)
    assert (failure.what, failure.where) == ("ValueError: shapes (2,) and (3,) differ", "Trainer")
    assert "AssertionError: AssertionError" in str(_failure("Trainer", AssertionError()))


def test_an_interruption_stays_one() -> None:
    interruption = KeyboardInterrupt()
    assert _failure("Trainer", interruption) is interruption


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    """A store with the run "now", whose Trainer has just come to grief, and an older run."""
    recorder = Recorder(tmp_path / "metadata.sqlite")
    recorder.execution("Trainer", "before", state=pb.Execution.FAILED, error="another reason")
    recorder.execution("Transform", "now")
    return recorder


def write_error(recorder: Recorder, failure: BaseException) -> int:
    """Record a failure of the Trainer in the run "now"."""
    run_id = SimpleNamespace(field_value=SimpleNamespace(string_value="now"))
    spec: Any = SimpleNamespace(runtime_spec=SimpleNamespace(pipeline_run_id=run_id))
    config = pb.ConnectionConfig()
    config.sqlite.filename_uri = str(recorder.path)
    return _write_error(config, spec, "Trainer", failure)


@pytest.mark.parametrize(
    ("left", "then"),
    [(pb.Execution.FAILED, "failed"), (pb.Execution.RUNNING, "interrupted")],
    ids=["failed", "running"],
)
def test_the_reason_stands_beside_the_failed_execution(recorder: Recorder, left: int, then: str) -> None:
    execution = recorder.execution("Trainer", "now", state=left)
    failure = StageError("the loss is not a number", where="Trainer")
    assert write_error(recorder, failure) == execution
    before, now = Lineage(recorder.store).runs()
    assert before.outcome == "Trainer: another reason"
    assert [(stage.name, stage.state, stage.error) for stage in now.stages] == [
        ("Transform", "done", ""),
        ("Trainer", then, str(failure)),
    ]
    assert now.state == then


def test_an_interruption_without_words_is_written_down_by_its_name(recorder: Recorder) -> None:
    recorder.execution("Trainer", "now", state=pb.Execution.RUNNING)
    write_error(recorder, KeyboardInterrupt())
    assert Lineage(recorder.store).runs()[-1].stages[-1].error == "KeyboardInterrupt"


def test_a_stage_that_was_never_registered_has_no_execution(recorder: Recorder) -> None:
    assert write_error(recorder, StageError("the driver failed")) == 0
    assert [stage.error for stage in Lineage(recorder.store).runs()[-1].stages] == [""]


def test_only_what_was_running_is_closed(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "metadata.sqlite")
    states = [pb.Execution.RUNNING, pb.Execution.COMPLETE, pb.Execution.FAILED, pb.Execution.CACHED]
    for state in states:
        recorder.execution("Trainer", "killed", state=state)
    _close_interrupted(Lineage(recorder.store))
    found = sorted(recorder.store.get_executions(), key=lambda execution: execution.id)
    assert [execution.last_known_state for execution in found] == [pb.Execution.CANCELED, *states[1:]]
