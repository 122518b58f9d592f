"""A job server is found, started, waited for with an end, and stopped however the run ends."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import grpc
import pytest

from bike_pipeline.errors import ConfigurationError, MissingExtraError, StageError, StorageError
from bike_pipeline.runners.beam import job_server, job_server_programs
from bike_pipeline.settings import PROJECT_ROOT, load_settings

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def jar(tmp_path):
    path = tmp_path / "server.jar"
    path.touch()
    return path


def beam(java="java", jar="", **values):
    given = {"engine": "flink", "job_server.java": java, **({"flink.job_server_jar": jar} if jar else {}), **values}
    return load_settings(assignments=tuple(f"beam.{key}={value}" for key, value in given.items())).beam


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # One that ended and was not waited for is no longer running either.
    return " Z " not in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")


def ends(pid):
    until = time.monotonic() + 60
    while is_running(pid):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def served(logs):
    (log,) = logs.glob("job-server-flink-*.log")
    return re.search(r"process (\d+) stages into (\S+) for (\S+)", log.read_text(encoding="utf-8"))


def test_a_server_runs_inside_the_block_and_not_after_it(java, jar, tmp_path):
    with job_server.running(beam(java("listening"), jar), "flink", tmp_path / "logs") as endpoint:
        with grpc.insecure_channel(endpoint) as channel:
            grpc.channel_ready_future(channel).result(timeout=30)
        found = served(tmp_path / "logs")
        pid, staging = int(found.group(1)), Path(found.group(2))
        assert found.group(3) == "[local]"
        assert is_running(pid)
        assert staging.is_dir()
    assert not is_running(pid)
    assert not staging.exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, StageError("a stage failed")])
def test_a_server_is_stopped_when_the_run_ends_badly(java, jar, tmp_path, error):
    kind = error if isinstance(error, type) else type(error)
    with pytest.raises(kind), job_server.running(beam(java("listening"), jar), "flink", tmp_path / "logs"):
        raise error
    assert not is_running(int(served(tmp_path / "logs").group(1)))


def test_a_server_ends_with_a_run_that_is_killed(java, jar, tmp_path):
    code = f"""
import pathlib, time
from bike_pipeline.settings import load_settings
from bike_pipeline.runners.beam import job_server_programs
from bike_pipeline.runners.beam import job_server
beam = load_settings(assignments=(
    "beam.engine=flink", "beam.job_server.java={java("listening")}", "beam.flink.job_server_jar={jar}"
)).beam
with job_server.running(beam, "flink", pathlib.Path({str(tmp_path / "logs")!r})):
    print("up", flush=True)
    time.sleep(600)
"""
    run = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert run.stdout.readline() == "up\n"
    pid = int(served(tmp_path / "logs").group(1))
    assert is_running(pid)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    assert ends(pid)


def test_a_server_that_ends_at_once_is_told_with_its_last_words(java, jar, tmp_path):
    with (
        pytest.raises(StageError, match=r"ended at once \(the cluster refused me\)") as error,
        job_server.running(beam(java("broken"), jar), "flink", tmp_path / "logs"),
    ):
        pytest.fail("it runs")
    (log,) = (tmp_path / "logs").iterdir()
    assert str(log) in error.value.fix


def test_a_server_that_never_answers_is_given_up(java, jar, tmp_path):
    settings = beam(java("silent"), jar, **{"job_server.start_seconds": 1})
    with (
        pytest.raises(StageError, match="did not answer within 1 s") as error,
        job_server.running(settings, "flink", tmp_path / "logs"),
    ):
        pytest.fail("it answers")
    assert "beam.job_server.start_seconds" in error.value.fix


def test_a_log_that_cannot_be_written(java, jar, tmp_path):
    (tmp_path / "logs").touch()
    with (
        pytest.raises(StorageError, match="cannot write the log"),
        job_server.running(beam(java("listening"), jar), "flink", tmp_path / "logs"),
    ):
        pytest.fail("it was written")


def test_a_server_that_runs_already_is_used_and_left_alone(java, jar, tmp_path):
    with job_server.running(beam(java("listening"), jar), "flink", tmp_path / "logs") as endpoint:
        settings = beam(**{"job_server.endpoint": endpoint})
        with job_server.running(settings, "flink", tmp_path / "others") as same:
            assert same == endpoint
        assert is_running(int(served(tmp_path / "logs").group(1)))
        assert not (tmp_path / "others").exists()


def test_nothing_at_the_endpoint(tmp_path):
    settings = beam(**{"job_server.endpoint": "localhost:1", "job_server.start_seconds": 1})
    with (
        pytest.raises(ConfigurationError, match="no Beam job server answered within 1 s"),
        job_server.running(settings, "flink", tmp_path),
    ):
        pytest.fail("something answers")


def test_java_is_asked_for_its_version(java, jar, tmp_path):
    assert job_server_programs.java_problem(str(java("listening"))) == ""
    assert job_server_programs.java_problem(str(java("listening", "11.0.2"))).endswith("is Java 11")
    assert job_server_programs.java_problem("no-such-java") == "there is no program 'no-such-java'"
    with pytest.raises(MissingExtraError, match=r"needs Java 17 or newer.*is Java 11"):
        job_server_programs.require(beam(java("listening", "11.0.2"), jar), "flink")


def test_a_jar_that_is_missing_is_named_with_the_way_to_get_it(java, tmp_path):
    settings = beam(java("listening"), **{"job_server.folder": tmp_path, "flink.version": '"1.20"'})
    with pytest.raises(MissingExtraError, match="Run `make flink`") as error:
        job_server_programs.require(settings, "flink")
    assert error.value.where == f"{tmp_path}/beam-runners-flink-1.20-job-server-{version('apache-beam')}.jar"


def test_where_jars_are():
    settings = beam(**{"job_server.version": "2.75.0"})
    assert job_server_programs.artifact(settings, "spark") == "org.apache.beam:beam-runners-spark-3-job-server:2.75.0"
    name = "beam-runners-spark-3-job-server-2.75.0.jar"
    assert job_server_programs.jar_path(settings, "spark") == PROJECT_ROOT / ".job-servers" / name
    assert job_server_programs.jar_path(beam(jar="~/own.jar"), "flink") == Path.home() / "own.jar"


def test_the_command_is_the_one_that_beams_own_runners_start():
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.flink_runner import FlinkJarJobServer
    from apache_beam.runners.portability.spark_runner import SparkJarJobServer

    settings = beam(**{"flink.master": "h:1", "spark.master": "local[3]", "workers": "{environment: DOCKER, image: i}"})
    options = PipelineOptions(["--flink_master=h:1", "--spark_master_url=local[3]"])
    for engine, server in (("flink", FlinkJarJobServer(options)), ("spark", SparkJarJobServer(options))):
        theirs = [str(part) for part in server.java_arguments(7, 0, 0, "/staging")]
        ours = job_server.command(settings, engine, Path("a.jar"), 7, "/staging")
        given = set(itertools.pairwise(ours))
        assert set(zip(theirs[::2], theirs[1::2], strict=True)) <= given
        assert ours[ours.index("-jar") + 1] == "a.jar"
