"""A run of triggers in Kubeflow Pipelines: submitted once, waited for, and what it came to read in its metadata.

The server is the API's stand-in; what the tasks would write into ML Metadata is written by the test.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from bike_pipeline.errors import DataGateError, MetadataError, StageError
from bike_pipeline.lineage.store.metadata_store import FAILED
from bike_pipeline.retraining.events import Event, digest_of
from bike_pipeline.retraining.ledger import Ledger
from bike_pipeline.settings import load_settings
from bike_pipeline.settings.kubeflow import ClusterMetadata
from bike_pipeline.settings.retraining import PolicySettings
from bike_pipeline.use_cases.retraining import open_ledger
from bike_pipeline.use_cases.retraining_executor import PipelineExecutor
from tests.lineage.world import SECOND, Runs
from tests.runners.kubeflow.client.conftest import nothing_from_outside, server

__all__ = ["nothing_from_outside", "server"]


@pytest.fixture
def world(tmp_path):
    return Runs(tmp_path / "workspace")


@pytest.fixture
def executor(world, server):
    settings = load_settings(
        assignments=(
            f"workspace={world.workspace}",
            "retraining.runner=kubeflow",
            f"kubeflow.client.endpoint={server.address}",
            "kubeflow.client.poll_seconds=0.01",
        )
    )
    # The cluster's, as if its volume were mounted here.
    metadata = ClusterMetadata(sqlite_file=str(world.settings.metadata_file))
    kubeflow = settings.kubeflow.model_copy(update={"metadata": metadata})
    settings = settings.model_copy(update={"kubeflow": kubeflow})
    made = PipelineExecutor(settings)
    ledger = open_ledger(settings)
    ledger.see(Event("code", "here", digest_of("a"), reason="new code"))
    made.run = ledger.claim(ledger.hold_lease("one", 30), PolicySettings())
    return made


class Recorded(dict):
    """The server's runs; the tasks of one that is begun write into ML Metadata."""

    def __init__(self, record):
        super().__init__()
        self._record = record

    def __setitem__(self, run_id, made):
        super().__setitem__(run_id, made)
        self._record(run_id)


@pytest.fixture
def ends(server):
    def so(state, record):
        server.states, server.runs = [("RUNNING", {}, ""), (state, {"DataGate": state}, "")], Recorded(record)

    return so


def test_what_the_cluster_pushed_is_what_is_promoted_here(executor, world, ends, server):
    ends("SUCCEEDED", lambda run_id: world.run(run_id, (1,), SECOND))
    trained = []
    judged = executor.train(executor.run, lambda: trained.append(True))
    assert (judged.run_id, judged.pushed_version) == (next(iter(server.runs)), SECOND)
    assert trained
    # A process that takes over waits for the same run.
    assert executor.train(executor.run, list) == judged
    assert len(server.runs) == 1


def test_a_process_that_dies_before_it_notes_what_it_submitted_submits_once(executor, world, ends, server, monkeypatch):
    ends("SUCCEEDED", lambda run_id: world.run(run_id, (1,), SECOND))

    class DiedError(Exception):
        pass

    def die(*_):
        raise DiedError

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "set_control", die)
        with pytest.raises(DiedError):
            executor.train(executor.run, list)
    assert executor.train(executor.run, list).run_id == next(iter(server.runs))
    assert len(server.runs) == 1


def test_another_claim_of_the_same_change_is_another_run(executor, ends, server, world):
    ends("SUCCEEDED", lambda run_id: world.run(run_id, (1,), SECOND))
    executor.train(executor.run, list)
    executor.train(replace(executor.run, number=2), list)
    assert len(server.runs) == 2


def test_a_candidate_that_is_not_blessed_pushes_nothing(executor, world, ends):
    ends("SUCCEEDED", lambda run_id: world.run(run_id, (1,), None))
    assert executor.train(executor.run, list).pushed_version is None


def test_rows_that_the_gate_refuses_there_are_refused_here_and_other_failures_are_tried_again(executor, world, ends):
    def refused(run_id):
        world.recorder.execution("DataGate", run_id, state=FAILED, error="a week of the label is off")

    ends("FAILED", refused)
    with pytest.raises(DataGateError, match="a week of the label is off"):
        executor.train(executor.run, list)


def test_another_failure_is_one_of_the_stage(executor, world, ends):
    ends("FAILED", lambda run_id: world.recorder.execution("Trainer", run_id, state=FAILED, error="out of memory"))
    with pytest.raises(StageError, match="the run failed"):
        executor.train(executor.run, list)


def test_a_run_that_the_metadata_do_not_know_is_no_result(executor, world, ends):
    ends("SUCCEEDED", lambda run_id: world.run("another", (1,), SECOND))
    with pytest.raises(MetadataError, match="is not in the ML Metadata of the cluster"):
        executor.train(executor.run, list)
