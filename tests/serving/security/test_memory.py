"""What strangers and impolite clients may make a real server keep: its memory is read from the system."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from bike_pipeline.serving.security import api_keys
from tests.serving.running import running_server
from tests.rollout.gateway.authorities import Authority

MIB = 1 << 20
PREDICT = "POST /v1/models/bike_demand:predict"
PIECE = b" " * MIB
ORIGIN = "Origin: https://example.org\r\n"


def memory(process, kind="VmRSS"):
    """Return the resident memory of a process in bytes; `VmHWM` for the most that it ever was."""
    lines = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{kind}:"))


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    """A server without a model, with TLS and keys; the TLS context of its clients and a key."""
    folder = tmp_path_factory.mktemp("memory")
    authority = Authority(folder)
    server = authority.sign("server")
    key = api_keys.create(folder / "workspace" / "keys" / "api-keys.json", "dashboard", ["predict"])[1]
    settings = (
        f"tls.certificate_file={server.certificate}",
        f"tls.key_file={server.key}",
        "authentication.methods=[api_keys]",
        f"limits={{client_bytes: {64 * MIB}, bodies_bytes: {64 * MIB}}}",
    )
    assignments = (*(f"serving.security.{each}" for each in settings), f"serving.server.max_request_bytes={48 * MIB}")
    with running_server(folder / "models", folder / "workspace", *assignments) as running:
        yield running, ssl.create_default_context(cafile=str(authority.certificate)), key


def opened(secured):
    running, context, _ = secured
    host, _, port = running.rest.partition(":")
    return context.wrap_socket(socket.create_connection((host, int(port)), timeout=30), server_hostname=host)


def upload(secured, start, headers="", *, promised=40, sent=40, encoding=""):
    """Send a request whose body is larger than it should be, and return the beginning of the answer, if any came."""
    length = encoding or f"Content-Length: {promised * MIB}"
    with contextlib.suppress(OSError), opened(secured) as connection:
        connection.sendall(f"{start} HTTP/1.1\r\nHost: a\r\n{headers}{length}\r\n\r\n".encode())
        with contextlib.suppress(OSError):
            for _ in range(sent):
                connection.sendall(b"100000\r\n" + PIECE + b"\r\n" if encoding else PIECE)
        if sent == promised:
            return connection.recv(64)
    return b""


@pytest.mark.parametrize(
    ("start", "headers"),
    [
        ("OPTIONS /v1/models/bike_demand:predict", ""),
        ("OPTIONS /v1/models/bike_demand:predict", ORIGIN),
        ("GET /monitoring/prometheus/metrics", ""),
        ("POST /monitoring/prometheus/metrics", ""),
        ("GET /v1/models/bike_demand", ""),
        (PREDICT, ""),
    ],
    ids=["options", "preflight", "metrics", "post-metrics", "status", "predict"],
)
@pytest.mark.parametrize("encoding", ["", "Transfer-Encoding: chunked"], ids=["length", "chunked"])
def test_what_strangers_send_is_never_kept(secured, start, headers, encoding):
    before = memory(secured[0].process, "VmHWM")
    with ThreadPoolExecutor(8) as clients:
        list(clients.map(lambda _: upload(secured, start, headers, encoding=encoding), range(16)))
    # Sixteen bodies of 40 MiB; each connection may hold what one read of its socket brings.
    assert memory(secured[0].process, "VmHWM") - before < 24 * MIB


def test_what_strangers_send_over_grpc_is_never_kept(secured, tmp_path):
    running, _, _ = secured
    authority = running.base.parent / "authority.pem"
    credentials = grpc.ssl_channel_credentials(authority.read_bytes())
    before = memory(running.process, "VmHWM")

    def call(number):
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
        with grpc.secure_channel(running.grpc, credentials, options) as channel:
            ask = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
            try:
                ask(bytes(40 * MIB), timeout=60)
            except grpc.RpcError as error:
                return error.code().name

    with ThreadPoolExecutor(4) as clients:
        assert set(clients.map(call, range(8))) == {"UNAUTHENTICATED"}
    # Each connection may hold what its window lets in.
    assert memory(running.process, "VmHWM") - before < 40 * MIB


def test_a_body_that_is_left_in_the_middle_is_forgotten(secured):
    running, _, key = secured
    headers = f"X-API-Key: {key}\r\n"
    upload(secured, PREDICT, headers, sent=30)
    before = memory(running.process)
    for _ in range(8):
        upload(secured, PREDICT, headers, sent=30)
    for _ in range(50):
        grown = memory(running.process) - before
        if grown < 60 * MIB:
            break
        time.sleep(0.1)
    assert grown < 60 * MIB, "eight bodies of 30 MiB were left"


def test_all_bodies_together_are_bounded_and_who_comes_too_late_is_told_so(secured):
    running, _, key = secured
    headers = f"X-API-Key: {key}\r\n"
    before = memory(running.process, "VmHWM")

    def held(connection):
        connection.sendall(f"{PREDICT} HTTP/1.1\r\nHost: a\r\n{headers}Content-Length: {30 * MIB}\r\n\r\n".encode())
        with contextlib.suppress(OSError):
            for _ in range(29):
                connection.sendall(PIECE)

    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(opened(secured)) for _ in range(10)]
        with ThreadPoolExecutor(10) as clients:
            list(clients.map(held, connections))
        told = []
        for connection in connections:
            connection.settimeout(1.0)
            with contextlib.suppress(OSError):
                told.append(connection.recv(4096).split(b" ", 2)[1])
    # Two fit into 64 MiB; all belong to one client.
    assert set(told) <= {b"429"}
    assert len(told) >= 4, told
    assert memory(running.process, "VmHWM") - before < 2.5 * 64 * MIB
    # What was held is free again.
    answer = upload(secured, PREDICT, headers, promised=40, sent=40)
    assert answer.split(b" ", 2)[1] in {b"400", b"404"}
