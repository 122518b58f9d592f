"""Loopback servers that fail in every way that a script names, one step a request, and count what they were asked."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from bike_pipeline import features
from bike_pipeline.serving import protos

predict_pb2, tensor_pb2, types_pb2 = map(
    protos.load,
    [
        "tensorflow_serving.apis.predict_pb2",
        "tensorflow.core.framework.tensor_pb2",
        "tensorflow.core.framework.types_pb2",
    ],
)


@dataclass
class Server:
    """A running server: what it was asked, and what it is still to do.

    `steps` are taken one a request; the last one is repeated.
    """

    port: int
    steps: list[Any]
    asked: list[Any] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def next_step(self, request: Any) -> Any:
        self.asked.append(request)
        return self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]


Step = Callable[[socket.socket, Server], None]


def answer(status: int, body: bytes = b"", **headers: str) -> Step:
    def step(connection: socket.socket, server: Server) -> None:
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)

    return step


def error(status: int, message: str, **headers: str) -> Step:
    return answer(status, json.dumps({"error": message}).encode(), **headers)


def outputs(*values: float) -> Step:
    return answer(200, json.dumps({"outputs": values}).encode())


def raw(content: bytes) -> Step:
    """Send something and close."""

    def step(connection: socket.socket, server: Server) -> None:
        connection.sendall(content)
        connection.close()

    return step


def reset(connection: socket.socket, server: Server) -> None:
    """End the connection as a crashed process does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def silence(connection: socket.socket, server: Server) -> None:
    """Say nothing until the end."""
    server.ended.wait()


def drip(connection: socket.socket, server: Server) -> None:
    """Answer a byte at a time, for longer than anybody waits."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    with contextlib.suppress(OSError):
        while not server.ended.wait(0.02):
            connection.sendall(b" ")


def drip_without_length(connection: socket.socket, server: Server) -> None:
    """Answer likewise, with a body that ends where the connection does."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    with contextlib.suppress(OSError):
        while not server.ended.wait(0.02):
            connection.sendall(b" ")


def drip_headers(connection: socket.socket, server: Server) -> None:
    """Send headers a byte at a time, for longer than anybody waits."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    with contextlib.suppress(OSError):
        while not server.ended.wait(0.02):
            connection.sendall(b"x")


def _request(connection: socket.socket) -> tuple[str, dict[str, str], bytes] | None:
    """Read one request: its first line, headers by lower-case name, body."""
    file = connection.makefile("rb")
    first = file.readline().decode().strip()
    headers = {}
    while line := file.readline().decode().strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return (first, headers, file.read(int(headers.get("content-length", 0)))) if first else None


@contextlib.contextmanager
def rest(*steps: Step, context: ssl.SSLContext | None = None) -> Iterator[Server]:
    """Run a REST server on a free port."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(listener.getsockname()[1], list(steps))
    opened: list[socket.socket] = []

    def talk(connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            if context is not None:
                connection = context.wrap_socket(connection, server_side=True)
            opened.append(connection)
            while request := _request(connection):
                server.next_step(request)(connection, server)

    def listen() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                opened.append(connection)
                threads.append(threading.Thread(target=talk, args=(connection,), daemon=True))
                threads[-1].start()

    threads = [threading.Thread(target=listen, daemon=True)]
    threads[0].start()
    try:
        yield server
    finally:
        server.ended.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in opened:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        for thread in threads:
            thread.join(10)


@dataclass
class Abort:
    """A gRPC step: end with a status."""

    code: grpc.StatusCode
    details: str = ""
    trailers: tuple[tuple[str, str], ...] = ()


class Silence:
    """A gRPC step: say nothing until the end."""


def prediction(*values: float, dtype: Any = None, as_content: bool = False) -> bytes:
    """Return a response with these rentals."""
    response = predict_pb2.PredictResponse()
    tensor = response.outputs[features.LABEL]
    tensor.dtype = types_pb2.DT_FLOAT if dtype is None else dtype
    tensor.tensor_shape.dim.add(size=len(values))
    if as_content:
        tensor.tensor_content = np.asarray(values, "<f4").tobytes()
    else:
        tensor.float_val.extend(values)
    return response.SerializeToString()


@contextlib.contextmanager
def over_grpc(*steps: bytes | Abort | Silence, credentials: Any = None) -> Iterator[Server]:
    """Run a gRPC server on a free port; every method of every service takes the next step."""

    class Handler(grpc.GenericRpcHandler):
        def service(self, call: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(lambda request, context: self.act(call, request, context))

        def act(self, call: Any, request: bytes, context: Any) -> bytes:
            step = server.next_step((call.method, dict(call.invocation_metadata), request))
            if isinstance(step, Silence):
                server.ended.wait()
                return b""
            if isinstance(step, Abort):
                context.set_trailing_metadata(step.trailers)
                context.abort(step.code, step.details)
            return step

    running = grpc.server(
        futures.ThreadPoolExecutor(4), (Handler(),), options=[("grpc.max_receive_message_length", -1)]
    )
    port = (
        running.add_insecure_port("127.0.0.1:0")
        if credentials is None
        else running.add_secure_port("127.0.0.1:0", credentials)
    )
    server = Server(port, list(steps))
    running.start()
    try:
        yield server
    finally:
        server.ended.set()
        running.stop(None).wait(10)
