"""What fails has one name, and is written beside the stage that failed; stages share one metadata store in turn."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ml_metadata.proto import metadata_store_pb2 as pb

from bike_pipeline import signals
from bike_pipeline.errors import DataError, ExportError, MetadataError, StageError, StorageError
from bike_pipeline.lineage.store.metadata_store import Lineage
from bike_pipeline.runners.stage_launcher import SerialMetadata, as_failure, write_error
from tests.recording import Recorder


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
    assert as_failure("CsvExampleGen", chained(ours, context_only)) is ours
    assert as_failure("CsvExampleGen", ours) is ours


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("KeyboardInterrupt [while running 'AnalyzeDataset/CreateSavedModel']"),
        # As pybind11 has it: neither its type nor its cause tells that there was an interruption.
        RuntimeError("MISMATCH of original and normalized active exception types: ORIGINAL InvalidArgumentError"),
        ExportError("it cannot be loaded", where="Format-Serving", fix="train again"),
    ],
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_a_library_makes_of_an_interruption_stays_one(error: Exception, number: int) -> None:
    assert not isinstance(as_failure("Exporter", error), KeyboardInterrupt)
    try:
        signals.hear(number)
        failure = as_failure("Exporter", error)
    finally:
        signals.forget()
    assert isinstance(failure, KeyboardInterrupt)
    assert str(failure) == ("SIGTERM" if number == signal.SIGTERM else "")
    assert isinstance(as_failure("Transform", chained(KeyboardInterrupt())), KeyboardInterrupt)


def test_a_step_that_an_engine_cannot_repeat_is_told_with_its_cure() -> None:
    told = RuntimeError(
        "Pipeline bike-demand-transform-1 failed in state FAILED: java.lang.RuntimeException: Error received from SDK "
        "harness for instruction 7: Traceback (most recent call last):\n  …\n"
        "tensorflow.python.framework.errors_impl.NotFoundError: /mnt/transform_graph/tftransform_tmp/1; No such file "
        "or directory [while running 'WriteTransformFn/WriteTransformFnToTemp']"
    )
    failure = as_failure("Transform", told)
    assert isinstance(failure, StageError)
    assert "lost a worker" in failure.what
    assert failure.fix.startswith("run again")
    assert "lost a worker" not in str(
        as_failure("Transform", RuntimeError(str(told).replace("NotFoundError", "Error")))
    )


@pytest.mark.parametrize("context_only", [False, True])
def test_what_the_operating_system_refused_is_a_storage_error(context_only: bool) -> None:
    cause = OSError(28, "No space left on device", "artifacts/model")
    failure = as_failure("Trainer", chained(cause, context_only))
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
    failure = as_failure("Trainer", RuntimeError(text))
    assert isinstance(failure, StorageError)
    assert failure.what == text


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("database or disk is full")])
def test_a_full_disk_is_named_where_the_error_does_not_say_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception
) -> None:
    places = (str(tmp_path / "artifacts"), str(tmp_path / "metadata.sqlite"))
    assert str(as_failure("Trainer", error, places)).startswith(f"Trainer: {places[0]} or {places[1]} or ")
    used = {str(tmp_path): 10**9, "/": 10**9}
    (tmp_path / "artifacts").mkdir()
    used[places[0]] = 0
    monkeypatch.setattr(
        "shutil.disk_usage",
        lambda p: SimpleNamespace(free=used.get(str(p), 10**9)),
    )
    assert str(as_failure("Trainer", error, places)).startswith(f"Trainer: {places[0]}: ")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            "{{function_node __wrapped__X_device_/job:a}} corrupted record at 7 [Op:X] name: ",
            "corrupted record at 7",
        ),
        ("Incompatible shapes: [2] vs. [3]\n\t [[{{node add}}]]", "Incompatible shapes: [2] vs. [3]"),
        ("no such table: Event query:  SELECT `id` FROM `Event` LIMIT 1;", "no such table: Event"),
        ('Given node already exists: type_id: 12 uri: "x"', "Given node already exists:"),
        ('cannot parse: "abc"', 'cannot parse: "abc"'),
    ],
)
def test_nobody_is_told_statements_fields_and_nodes(said: str, words: str) -> None:
    assert as_failure("Trainer", ValueError(said)).what == f"ValueError: {words}"  # type: ignore[union-attr]


def test_what_the_metadata_store_refuses_is_no_statement() -> None:
    from ml_metadata import errors

    told = as_failure("Trainer", errors.InternalError("mysql_query failed: too long query: INSERT INTO `Artifact`"))
    assert isinstance(told, MetadataError)
    assert told.what == "the metadata store refuses what it is asked (mysql_query failed: too long)"


def test_anything_else_is_the_stages_error_with_its_first_line() -> None:
    failure = as_failure("Trainer", ValueError("\nshapes (2,) and (3,) differ\nfurther lines"))
    assert isinstance(failure, StageError)
    assert (failure.what, failure.where) == ("ValueError: shapes (2,) and (3,) differ", "Trainer")
    assert "AssertionError: AssertionError" in str(as_failure("Trainer", AssertionError()))


def test_an_interruption_stays_one() -> None:
    interruption = KeyboardInterrupt()
    assert as_failure("Trainer", interruption) is interruption


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    """A store with the run "now", whose Trainer has just come to grief, and an older run."""
    recorder = Recorder(tmp_path / "metadata.sqlite")
    recorder.execution("Trainer", "before", state=pb.Execution.FAILED, error="another reason")
    recorder.execution("Transform", "now")
    return recorder


def record(recorder: Recorder, failure: BaseException) -> int:
    """Record a failure of the Trainer in the run "now"."""
    run_id = SimpleNamespace(field_value=SimpleNamespace(string_value="now"))
    spec: Any = SimpleNamespace(runtime_spec=SimpleNamespace(pipeline_run_id=run_id))
    config = pb.ConnectionConfig()
    config.sqlite.filename_uri = str(recorder.path)
    return write_error(config, spec, "Trainer", failure)


@pytest.mark.parametrize(
    ("left", "then"),
    [(pb.Execution.FAILED, "failed"), (pb.Execution.RUNNING, "interrupted")],
    ids=["failed", "running"],
)
def test_the_reason_stands_beside_the_failed_execution(recorder: Recorder, left: int, then: str) -> None:
    execution = recorder.execution("Trainer", "now", state=left)
    failure = StageError("the loss is not a number", where="Trainer")
    assert record(recorder, failure) == execution
    before, now = Lineage(recorder.store).runs()
    assert before.outcome == "Trainer: another reason"
    assert [(stage.name, stage.state, stage.error) for stage in now.stages] == [
        ("Transform", "done", ""),
        ("Trainer", then, str(failure)),
    ]
    assert now.state == then


@pytest.mark.parametrize("left", [pb.Execution.RUNNING, pb.Execution.FAILED], ids=["running", "failed"])
def test_an_interruption_without_words_is_written_down_by_its_name(recorder: Recorder, left: int) -> None:
    recorder.execution("Trainer", "now", state=left)
    record(recorder, KeyboardInterrupt())
    last = Lineage(recorder.store).runs()[-1]
    assert (last.stages[-1].error, last.stages[-1].state, last.state) == (
        "KeyboardInterrupt",
        "interrupted",
        "interrupted",
    )


def test_a_stage_that_was_never_registered_has_no_execution(recorder: Recorder) -> None:
    assert record(recorder, StageError("the driver failed")) == 0
    assert [stage.error for stage in Lineage(recorder.store).runs()[-1].stages] == [""]


def test_stages_beside_each_other_take_turns_at_the_metadata_store(recorder: Recorder) -> None:
    config = pb.ConnectionConfig()
    config.sqlite.filename_uri = str(recorder.path)
    inside, most, broken = [0], [0], []

    def work(number: int) -> None:
        try:
            connection = SerialMetadata(config)
            for round_ in range(3):
                # A driver that was handed the connection opens it inside the stage's own block.
                with connection as outer, connection as store:
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    type_id = outer.store.put_context_type(pb.ContextType(name="turns"))
                    store.store.put_contexts([pb.Context(type_id=type_id, name=f"{number}-{round_}")])
                    inside[0] -= 1
        except Exception as error:  # noqa: BLE001 - shown below
            broken.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert broken == []
    assert most == [1]
    assert len(recorder.store.get_contexts_by_type("turns")) == 12


def test_a_store_that_cannot_be_opened_leaves_the_turn_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tfx.orchestration.metadata._MAX_INIT_RETRY", 1)
    config = pb.ConnectionConfig()
    config.sqlite.filename_uri = str(tmp_path / "nowhere" / "metadata.sqlite")
    refused = []

    def work() -> None:
        try:
            with SerialMetadata(config):
                pass
        except RuntimeError as error:
            refused.append(error)

    for _ in range(2):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(60)
    assert len(refused) == 2
