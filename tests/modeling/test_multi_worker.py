"""Two real processes that train together over loopback, against one process on the same rows."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from bike_pipeline import features, progress
from bike_pipeline.errors import ConfigurationError, DataError, ExitCode, StageError
from bike_pipeline.modeling import cluster, worker_processes
from bike_pipeline.modeling.train_worker import TrainingJob
from tests.conftest import ROOT, TRAINING


@pytest.fixture(scope="module")
def example_files(few_rows, tmp_path_factory):
    """The few rows as ExampleGen writes them: gzipped TFRecords of tf.Examples, in two files."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("examples")
    halves = np.array_split(np.arange(len(few_rows["cnt"])), 2)
    for number, half in enumerate(halves):
        with tf.io.TFRecordWriter(str(folder / f"data_tfrecord-{number}.gz"), "GZIP") as writer:
            for row in half:
                example = tf.train.Example()
                for name, values in few_rows.items():
                    kind = {"i": "int64_list", "f": "float_list", "S": "bytes_list"}[values.dtype.kind]
                    getattr(example.features.feature[name], kind).value.append(values[row].item())
                writer.write(example.SerializeToString())
    return str(folder / "data_tfrecord-*")


@pytest.fixture
def job(example_files, transform_graph, tmp_path):
    def make(**training):
        return TrainingJob(
            examples=(example_files,),
            schema_file=str(ROOT / "configs" / "schema.pbtxt"),
            transform_graph=str(transform_graph),
            run_dir=str(tmp_path / "run"),
            model_dir=str(tmp_path / "model" / "Format-Serving"),
            training={**TRAINING, "strategy": "multi_worker", **training},
            seed=7,
        )

    return make


def start(job, member, *options):
    """Start one worker as a TrainJob's pod would: with nobody who watches over it."""
    environment = {**os.environ, cluster.TF_CONFIG: member.tf_config(), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, *worker_processes.WORKER, "--job", job.model_dump_json(), *options],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def events(text):
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.slow
def test_two_processes_train_the_model_of_one(job, exported, few_rows, tmp_path):
    import tensorflow as tf

    from bike_pipeline.modeling import saved_model, training

    reported = []
    with progress.listening(lambda fraction, text: reported.append((fraction, text))):
        worker_processes.run(job())
    folder = tmp_path / "model" / "Format-Serving"
    assert sorted(path.name for path in folder.parent.iterdir()) == ["Format-Serving"]
    # The chief alone writes: the losses as a table and, once, as TensorBoard's events.
    written = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert written == sorted([training.LOSS_FILE, training.EVENTS_FOLDER])
    assert len(list((tmp_path / "run" / training.EVENTS_FOLDER).iterdir())) == 1
    losses = np.loadtxt(tmp_path / "run" / training.LOSS_FILE, delimiter=",", skiprows=1)[:, 1]
    np.testing.assert_allclose(losses, exported.losses, rtol=1e-5)
    assert [fraction for fraction, _ in reported[:2]] == pytest.approx([0.5, 1.0])
    assert "2 workers" in reported[0][1]
    # Hours that the state of feedback, which only one of them begins with, says nothing of.
    early = (few_rows["yr"] == 0) & (few_rows["mnth"] < 12)
    raw = {name: tf.constant(few_rows[name][early]) for name in saved_model.input_signature(features.REQUIRED_INPUTS)}
    served, alone = (
        tf.saved_model.load(str(path)).signatures[features.SERVING_DEFAULT](**raw)["cnt"].numpy()
        for path in (folder, exported.path)
    )
    np.testing.assert_allclose(served, alone, rtol=1e-4)
    assert saved_model.signature_of(str(folder)) == saved_model.signature_of(str(exported.path))
    reference = (folder / saved_model.EXTRA_FOLDER / saved_model.NAIVE_BASELINE_FILE).read_bytes()
    assert reference == (exported.path / saved_model.EXTRA_FOLDER / saved_model.NAIVE_BASELINE_FILE).read_bytes()


@pytest.mark.slow
def test_a_killed_worker_ends_the_other_with_one_error_and_no_model(job, tmp_path):
    endless = job(epochs=10**6)
    members = cluster.on_this_machine(2)
    chief, other = (start(endless, member) for member in members)
    try:
        first = json.loads(chief.stdout.readline())
        assert first["progress"] == pytest.approx(1e-6)
        other.kill()
        # TensorFlow notices a closed connection at once and a silent one after missed heartbeats, ten seconds apart.
        out, err = chief.communicate(timeout=60)
        assert other.communicate()[0] == ""
    finally:
        chief.kill()
        other.kill()
    assert chief.returncode == ExitCode.STAGE
    *progresses, last = events(out)
    assert all(set(event) == {"progress", "text"} for event in progresses)
    assert last["peer_lost"]
    assert last["error"]["what"] == f"the training was cut off: no answer from {members[1].workers[1]}"
    assert last["error"]["where"] == "worker 0 of 2"
    (line,) = [line for line in err.splitlines() if line.startswith("error:")]
    assert line.startswith(f"error: worker 0 of 2: {last['error']['what']}. See that worker's log")
    assert not (tmp_path / "model").exists()
    assert not (tmp_path / "run").exists()


def test_a_worker_that_never_comes_is_named_within_the_bound(job):
    members = cluster.on_this_machine(2)
    alone = [start(job(worker_timeout=1.0), member) for member in members[1:]]
    alone.append(start(job(worker_timeout=1.0), cluster.on_this_machine(2)[0]))
    outputs = [process.communicate(timeout=120)[0] for process in alone]
    assert [process.returncode for process in alone] == [ExitCode.STAGE] * 2
    waited_for_chief, waited_for_worker = (json.loads(output)["error"]["what"] for output in outputs)
    assert waited_for_chief == f"worker 0 ({members[1].workers[0]}) did not come within 1 s"
    assert re.fullmatch(r"worker 1 \(127.0.0.1:\d+\) did not come within 1 s", waited_for_worker)


# What a worker says and how it ends, without the training in between.
WORKER = """
import json, os, sys, time
index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
error = {"what": "no answer", "where": f"worker {index}", "fix": "look", "exit_code": 10}
print("no event", flush=True)
print(json.dumps({"progress": 0.5, "text": "half"}), flush=True)
"""
ENDINGS = {
    "sleeps": "time.sleep(60)",
    "lost": 'print(json.dumps({"error": error, "peer_lost": True})); sys.exit(10)',
    "data": 'print(json.dumps({"error": error | {"what": "no rows", "exit_code": 4}})); sys.exit(4)',
    "status": "sys.exit(3)",
    "killed": "os.kill(os.getpid(), 9)",
    "done": "",
}


@pytest.mark.parametrize(
    ("endings", "kind", "said"),
    [
        (("sleeps", "killed"), StageError, "worker 1 of 2 ended by signal SIGKILL"),
        (("lost", "killed"), StageError, "worker 1 of 2 ended by signal SIGKILL"),
        (("lost", "data"), DataError, "no rows"),
        (("status", "done"), StageError, "worker 0 of 2 ended by status 3"),
        (("lost", "done"), StageError, "no answer"),
    ],
)
def test_the_stage_ends_all_workers_and_tells_the_root_of_a_failure(job, monkeypatch, tmp_path, endings, kind, said):
    branches = "".join(
        f"if index == {index}: {ENDINGS[ending]}\n" for index, ending in enumerate(endings) if ENDINGS[ending]
    )
    (tmp_path / "worker.py").write_text(WORKER + branches, encoding="utf-8")
    started = []
    popen = subprocess.Popen

    def remembered(*arguments, **options):
        started.append(popen(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(worker_processes.subprocess, "Popen", remembered)
    monkeypatch.setattr(worker_processes, "WORKER", (str(tmp_path / "worker.py"),))
    monkeypatch.setattr(worker_processes, "SETTLE_SECONDS", 1.0)
    with pytest.raises(kind) as error:
        worker_processes.run(job())
    assert error.value.what == said
    assert [process.poll() is not None for process in started] == [True, True]


def test_workers_end_when_the_stage_that_started_them_is_gone(job):
    member = cluster.on_this_machine(2)[1]
    process = start(job(worker_timeout=60.0), member, "--with-parent")
    process.stdin.close()
    assert process.wait(timeout=30) == ExitCode.INTERRUPTED


def test_workers_elsewhere_are_refused_inside_a_stage(job, monkeypatch):
    monkeypatch.setenv(cluster.TF_CONFIG, cluster.Cluster(("a:1", "b:1"), 0).tf_config())
    with pytest.raises(ConfigurationError, match="cannot know this run's artifacts"):
        worker_processes.run(job())
