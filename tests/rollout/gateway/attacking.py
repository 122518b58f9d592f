"""A gateway with keys before one server, and bytes, requests and calls to it."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from contextlib import contextmanager

import grpc
from tensorflow_serving.apis import prediction_service_pb2_grpc

from bike_pipeline.rollout.gateway import envoy
from tests.rollout.gateway.running import running_gateway
from tests.serving.running import MODEL, row
from tests.serving.server.asking import request_of

PREDICT = f"/v1/models/{MODEL}:predict"
BODY = json.dumps({"instances": [row(8, 0.5)]}).encode()


@contextmanager
def gateway_before(server, folder, *assignments):
    """Run a gateway with settings of its section before a server that runs."""
    address = f"{server.rest}:{server.grpc.rpartition(':')[2]}"
    settings = (f"gateway.{each}" for each in assignments)
    with running_gateway(
        folder / "nothing", folder / "workspace", *settings, options=("--servers", f"stable={address}")
    ) as made:
        yield made


def ask(address, key="", *, path=PREDICT, body=BODY, method=None, context=None, headers=None, seconds=60):
    """Return status, content and headers of the answer to one request."""
    host, _, port = address.partition(":")
    kind = http.client.HTTPSConnection if context else http.client.HTTPConnection
    options = {"context": context} if context else {}
    connection = kind(host, int(port), timeout=seconds, **options)
    try:
        sent = {**({"X-API-Key": key} if key else {}), **(headers or {})}
        connection.request(method or ("GET" if body is None else "POST"), path, body, sent)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers
    finally:
        connection.close()


def status(address, key="", **options):
    return ask(address, key, **options)[0]


def called(channel, metadata=(), request=None):
    """Return the status code of one Predict."""
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    try:
        stub.Predict(request or request_of(row(8, 0.5)), metadata=metadata, timeout=60)
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


def call(address, key="", *, request=None, metadata=(), credentials=None):
    """Return the status code of one Predict on a connection of its own."""
    metadata = (*metadata, *((("x-api-key", key),) if key else ()))
    made = grpc.secure_channel(address, credentials) if credentials else grpc.insecure_channel(address)
    with made as channel:
        return called(channel, metadata, request)


def post(*headers, body=b"", path=PREDICT):
    lines = [f"POST {path} HTTP/1.1", "Host: bikes", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def raw(address, sent, seconds=20.0):
    """Return what is answered to these bytes until the connection ends."""
    host, _, port = address.partition(":")
    with socket.create_connection((host, int(port)), timeout=seconds) as connection:
        connection.sendall(sent)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return answer


def connected(address, seconds=20.0):
    """Return a connection to a gateway."""
    host, _, port = address.partition(":")
    return socket.create_connection((host, int(port)), timeout=seconds)


def figures(gateway, names):
    """Return Envoy's own figures whose names match."""
    found = envoy.asked(f"/stats?format=json&filter={names}", gateway.admin)
    return {one["name"]: one["value"] for one in json.loads(found)["stats"] if "name" in one}


def allocated(gateway):
    """Return the bytes that Envoy holds for something now."""
    return int(json.loads(envoy.asked("/memory", gateway.admin))["allocated"])


def memory(pid, what="VmRSS"):
    """Return bytes that a process has in memory now, or with VmHWM had at most."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(f"{what}:"))


def children(pid):
    """Return the pids of a process's children by their program's name."""
    import psutil

    return {child.name(): child.pid for child in psutil.Process(pid).children()}


def client_context(authority, certificate=None, version=None):
    context = ssl.create_default_context(cafile=str(authority.certificate))
    if certificate:
        context.load_cert_chain(str(certificate.certificate), str(certificate.key))
    if version:
        context.minimum_version = context.maximum_version = version
    return context
