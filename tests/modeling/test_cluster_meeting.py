from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from bike_pipeline.errors import ConfigurationError
from bike_pipeline.modeling import cluster


def meet_all(members, jobs, seconds=20.0):
    """Let the members meet in threads; return what each of them raised, or None."""

    def one(member, job):
        try:
            cluster.meet(member, job, seconds)
        except (cluster.PeerLostError, ConfigurationError) as error:
            return error
        return None

    with ThreadPoolExecutor(len(members)) as pool:
        return list(pool.map(one, members, jobs))


def test_three_workers_meet_and_leave_the_port_free():
    members = cluster.on_this_machine(3)
    assert meet_all(members, ["job"] * 3) == [None] * 3
    host, _, port = members[0].workers[0].rpartition(":")
    socket.create_server((host, int(port)), reuse_port=False).close()


def test_who_is_missing_is_told_to_all():
    members = cluster.on_this_machine(3)
    chief, worker = meet_all(members[:2], ["job"] * 2, seconds=0.5)
    for index, error in enumerate((chief, worker)):
        assert error.what == f"worker 2 ({members[0].workers[2]}) did not come within 0.5 s"
        assert error.where == f"worker {index} of 3"


def test_without_a_chief_the_others_give_up():
    members = cluster.on_this_machine(2)
    (error,) = meet_all(members[1:], ["job"], seconds=0.2)
    assert error.what == f"worker 0 ({members[0].workers[0]}) did not come within 0.2 s"


def test_workers_with_different_jobs_do_not_train_together():
    errors = meet_all(cluster.on_this_machine(2), ["job", "another"])
    assert [error.what for error in errors] == ["worker 1 is to train something else than the chief"] * 2


def test_strangers_at_the_chiefs_port_are_sent_away():
    members = cluster.on_this_machine(2)
    host, _, port = members[0].workers[0].rpartition(":")
    with ThreadPoolExecutor(1) as pool:
        chief = pool.submit(cluster.meet, members[0], "job", 20.0)
        for said in (b"GET / HTTP/1.1\r\n\r\n", b'{"index": 7, "job": "job"}\n', b"[]\n"):
            for _ in range(100):
                try:
                    stranger = socket.create_connection((host, int(port)), timeout=5)
                    break
                except ConnectionRefusedError:
                    time.sleep(0.02)
            stranger.sendall(said)
            assert stranger.recv(100) == b""
            stranger.close()
        cluster.meet(members[1], "job", 20.0)
        chief.result()


def test_a_port_that_is_taken_is_one_clear_error():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        chief = cluster.Cluster((f"127.0.0.1:{port}", "127.0.0.1:1"), 0)
        with pytest.raises(ConfigurationError, match=f"cannot listen at port {port}"):
            cluster.meet(chief, "job", 1.0)
