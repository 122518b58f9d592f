"""What keeps an engine from working is told before a run starts, in words and with the address."""

from __future__ import annotations

import socket
import time

import pytest

from bike_pipeline.errors import ClusterError, ConfigurationError, ExitCode
from bike_pipeline.runners.beam import preflight
from bike_pipeline.runners.beam_runner import BeamRunner
from bike_pipeline.settings import load_settings


@pytest.fixture
def check(java, tmp_path, flink):
    """A function that looks at the fake cluster with changed settings."""
    (tmp_path / "server.jar").touch()

    def run(*changes, master=flink.master):
        beam = {
            "engine": "flink",
            "flink.master": master,
            "flink.version": "1.20",
            "job_server.java": java("silent"),
            "flink.job_server_jar": tmp_path / "server.jar",
        }
        settings = load_settings(assignments=(*(f"beam.{key}={value}" for key, value in beam.items()), *changes))
        preflight.check(settings)
        return settings

    return run


def test_a_cluster_that_fits_is_asked_once(check, flink):
    check()
    check(master=f"http://{flink.master}/")
    assert flink.asked == ["/overview", "/overview"]


def test_a_cluster_inside_the_job_server_is_not_asked(check, flink):
    check(master="'[local]'")
    assert flink.asked == []


def test_a_cluster_that_cannot_be_reached_is_told_at_once_with_its_address(check, monkeypatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        master = f"127.0.0.1:{probe.getsockname()[1]}"
    # Flink's own client knows no proxy.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(ClusterError, match=r"no Flink answers there \(connection refused\)") as error:
        check(master=master)
    assert time.monotonic() - began < 60, "Beam's job server takes 118 s"
    assert error.value.where == f"beam.flink.master {master}"
    assert error.value.exit_code == ExitCode.CLUSTER
    with pytest.raises(ClusterError, match="no Flink answers there"):
        check("beam.workers={environment: PROCESS, command: boot}", master="no-such-host.invalid:8081")


def test_what_answers_and_is_no_flink_is_told(check, flink):
    with pytest.raises(ClusterError, match=r"is no Flink \(HTTP 404\)"):
        check(master=f"http://{flink.master}/elsewhere")
    flink.overview = {"status": "UP"}
    with pytest.raises(ClusterError, match="what answers there is no Flink"):
        check()


def test_a_job_server_for_another_flink_is_refused_with_the_way_to_the_right_one(check, flink):
    flink.overview["flink-version"] = "2.1.0"
    with pytest.raises(ConfigurationError, match=r"is Flink 2\.1\.0, and the job server is for Flink 1\.20") as error:
        check()
    assert "beam.flink.version=2.1" in error.value.fix


def test_loopback_workers_are_refused_for_two_task_managers(check, flink):
    flink.overview["taskmanagers"] = 2
    with pytest.raises(ConfigurationError, match="has 2 task managers, and LOOPBACK workers can serve one"):
        check()
    check("beam.workers={environment: PROCESS, command: /opt/apache/beam/boot}")
    check("beam.workers={environment: EXTERNAL, address: 'localhost:50000'}")


def test_a_job_server_elsewhere_may_reach_a_cluster_that_this_machine_does_not(check, flink):
    workers = "beam.workers={environment: PROCESS, command: boot}"
    check("beam.job_server.endpoint=jobs.example.com:8099", workers, master="flink.example.com:8081")
    flink.overview["taskmanagers"] = 2
    with pytest.raises(ConfigurationError, match="2 task managers"):
        check("beam.job_server.endpoint=localhost:8099")


@pytest.mark.parametrize(
    ("places", "where"),
    [
        ((), "data.store"),
        (("data.store=gs://bikes/spans",), "beam.pipeline_root"),
        (("beam.pipeline_root=gs://bikes/artifacts",), "data.store"),
        (("data.store=/mnt/spans", "beam.pipeline_root=gs://bikes/artifacts"), "data.store /mnt/spans"),
    ],
)
def test_workers_in_containers_see_no_folder_and_a_run_says_so_before_it_starts(check, places, where):
    with pytest.raises(ConfigurationError, match="mounts no folder into the containers") as error:
        check("beam.workers={environment: DOCKER, image: bikes}", *places)
    assert where in error.value.where
    check(
        "beam.workers={environment: DOCKER, image: bikes}",
        "data.store=gs://bikes/spans",
        "beam.pipeline_root=gs://bikes/artifacts",
    )


def test_a_run_ends_before_it_touches_anything(check, flink, tmp_path):
    settings = check(f"workspace={tmp_path}/workspace")
    flink.overview["taskmanagers"] = 3
    with pytest.raises(ConfigurationError, match="3 task managers"):
        BeamRunner(settings, observer=None).run()
    assert not (tmp_path / "workspace").exists()
