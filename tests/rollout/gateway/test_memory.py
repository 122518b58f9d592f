"""What Envoy holds in memory of those who send much."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time

import grpc
import pytest

from bike_pipeline.rollout.gateway import api_keys
from bike_pipeline.rollout.gateway.configuration import BUFFER_BYTES
from tests.rollout.gateway import attacking
from tests.rollout.gateway.attacking import call, gateway_before, post, status
from tests.serving.server.asking import wait_until


def kept(gateway, connections, sent):
    """Return by how much Envoy grew by unfinished bodies, when it has read what it reads of them."""
    envoy = attacking.children(gateway.process.pid)["envoy"]
    before, open_ones = attacking.memory(envoy), []
    for _ in range(connections):
        open_ones.append(attacking.connected(gateway.address))
        open_ones[-1].sendall(post("Content-Length: 60000000"))
    for connection in open_ones:
        # Where it is refused it is closed, too.
        with contextlib.suppress(OSError):
            connection.sendall(b"x" * sent)

    def is_over():
        figures = attacking.figures(
            gateway, "http.gateway.downstream_cx_active|http.gateway.downstream_cx_rx_bytes_total"
        )
        active, read = (figures[f"http.gateway.downstream_cx_{name}"] for name in ("active", "rx_bytes_total"))
        return active == 0 or read >= connections * sent

    wait_until(is_over)
    for connection in open_ones:
        connection.close()
    # An allocator gives hardly anything back, so that this is the most that it was.
    return attacking.memory(envoy) - before


def test_the_body_of_a_stranger_is_not_kept(server, tmp_path):
    connections, sent = 64, 2_500_000
    _, _ = api_keys.create(tmp_path / "strange" / "workspace" / "keys" / "gateway-keys.json", "dashboard")
    with gateway_before(server, tmp_path / "strange", "authentication.methods=[api_keys]") as gateway:
        # What is read at once of each, and 8 MiB for connections, statistics and what threads hold in reserve.
        assert kept(gateway, connections, sent) < connections * BUFFER_BYTES + 8 * 2**20
    # Where everybody is let in the same bodies are kept: this is how it would look.
    with gateway_before(server, tmp_path / "open") as gateway:
        assert kept(gateway, connections, sent) > connections * sent / 2


@pytest.mark.parametrize("megabytes", [96, 1024])
def test_all_bodies_together_are_bounded_and_none_that_is_not_whole_reaches_the_server(server, tmp_path, megabytes):
    before = attacking.memory(server.process.pid)
    limits = f"limits={{memory_megabytes: {megabytes}, request_bytes: 16777216, read_seconds: 300}}"
    with gateway_before(server, tmp_path, limits) as gateway:
        one_client = [attacking.connected(gateway.address) for _ in range(50)]
        for connection in one_client:
            connection.sendall(post("Content-Length: 9000000"))
        most, ended, another = 0, set(), []
        for _ in range(16):
            for connection in one_client:
                try:
                    connection.sendall(b"x" * 262_144)
                except OSError:
                    ended.add(connection)
            # Envoy looks at its memory every 0.1 s; what comes in between is a round of these at most.
            time.sleep(0.3)
            most = max(most, attacking.allocated(gateway))
            with contextlib.suppress(OSError, http.client.HTTPException):
                another.append(status(gateway.address))
        one_round = len(one_client) * 262_144
        if megabytes == 96:
            # 200 MiB were on their way.
            assert most < megabytes * 2**20 + 2 * one_round
            assert ended
        else:
            # So it would look without the bound.
            assert most > 15 * one_round
            assert not ended
        for connection in one_client:
            connection.close()
        # Another client was answered meanwhile, and is.
        assert another.count(200) > 4
        wait_until(lambda: status(gateway.address) == 200)
    assert attacking.memory(server.process.pid) - before < 50 * 2**20


def test_large_messages_of_one_client_are_ended_and_another_client_is_answered(server, tmp_path):
    going_on = threading.Event()

    def unfinished():
        yield b"x" * 4_000_000
        going_on.wait(120)

    with (
        gateway_before(server, tmp_path, "limits={memory_megabytes: 96, request_bytes: 16777216}") as gateway,
        grpc.insecure_channel(gateway.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel,
    ):
        call_it = channel.stream_unary("/tensorflow.serving.PredictionService/Predict")
        calls = [call_it.future(unfinished(), timeout=120) for _ in range(40)]
        try:
            # 160 MB are on their way, on one connection.
            wait_until(lambda: any(one.done() for one in calls))
            assert {one.exception().code().name for one in calls if one.done()} <= {
                "INTERNAL",
                "UNAVAILABLE",
                "CANCELLED",
            }
            wait_until(lambda: call(gateway.address) == "OK")
            assert attacking.allocated(gateway) < 96 * 2**20
        finally:
            going_on.set()
