"""How the workers of a training come together, within a bounded time.

TensorFlow waits for absent workers without end, and with the interpreter locked, so that no thread of ours could end
the wait. So the workers meet before it starts: each calls the chief, at the address where TensorFlow will listen a
moment later, and says who it is and what it is to train; when all are there, the chief lets them go.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from typing import Any

from bike_pipeline.errors import ConfigurationError, StageError
from bike_pipeline.modeling.cluster import Cluster

# The chief's verdict reaches the others before they give up by themselves.
GRACE_SECONDS = 2.0
RETRY_SECONDS = 0.2
# A line of ours is some hundred bytes; whoever sends more is somebody else.
LINE_BYTES = 4096
HELLO_SECONDS = 5.0


class PeerLostError(StageError):
    """Another worker is absent or lost; its own log says why."""


def name(cluster: Cluster) -> str:
    """Return this process's name among the workers."""
    return f"worker {cluster.index} of {len(cluster.workers)}"


def meet(cluster: Cluster, job: str, seconds: float) -> None:
    """Return when all workers of the cluster are there, within `seconds`; `job` must be the same text for all.

    Raises:
        PeerLostError: a worker did not come in time.
        ConfigurationError: a worker has another job, or the chief cannot listen at its address.
    """
    deadline = time.monotonic() + seconds
    if cluster.is_chief:
        _await_all(cluster, job, seconds, deadline)
    else:
        _call_chief(cluster, job, seconds, deadline + GRACE_SECONDS)


def _missing(cluster: Cluster, seconds: float, absent: list[int]) -> PeerLostError:
    named = ", ".join(f"worker {index} ({cluster.workers[index]})" for index in absent)
    return PeerLostError(
        f"{named} did not come within {seconds:g} s",
        where=name(cluster),
        fix="see its log, and that its address can be reached; training.worker_timeout says how long is waited",
    )


def _listen(cluster: Cluster) -> socket.socket:
    port = int(cluster.workers[0].rpartition(":")[2])
    both = socket.has_dualstack_ipv6()
    try:
        return socket.create_server(("", port), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen at port {port} ({error.strerror or error})",
            where=name(cluster),
            fix="end the program that listens there, or give the workers another port",
        ) from None


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    # Who went away meanwhile is missed by TensorFlow, which says so.
    with contextlib.suppress(OSError):
        connection.sendall(json.dumps(message).encode() + b"\n")


def _receive(connection: socket.socket, seconds: float) -> dict[str, Any]:
    """Return one message; empty if nothing comes in time, or something else than a message."""
    connection.settimeout(max(seconds, 0.001))
    try:
        with connection.makefile("rb") as file:
            message = json.loads(file.readline(LINE_BYTES))
    except (OSError, ValueError):
        return {}
    return message if isinstance(message, dict) else {}


def _await_all(cluster: Cluster, job: str, seconds: float, deadline: float) -> None:
    arrived: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_listen(cluster))
        while len(arrived) < len(cluster.workers) - 1:
            server.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                connection, _ = server.accept()
            except TimeoutError:
                absent = [index for index in range(1, len(cluster.workers)) if index not in arrived]
                for waiting in arrived.values():
                    _send(waiting, {"missing": absent})
                raise _missing(cluster, seconds, absent) from None
            stack.enter_context(connection)
            hello = _receive(connection, min(HELLO_SECONDS, deadline - time.monotonic()))
            index = hello.get("index")
            if not isinstance(index, int) or not 0 < index < len(cluster.workers):
                connection.close()
                continue
            if hello.get("job") != job:
                for waiting in (connection, *arrived.values()):
                    _send(waiting, {"another_job": index})
                raise _another_job(cluster, index)
            arrived[index] = connection
        for waiting in arrived.values():
            _send(waiting, {"go": True})
            # The caller closes first: else the port would be held for a minute by connections that linger.
            _receive(waiting, HELLO_SECONDS)


def _another_job(cluster: Cluster, index: int) -> ConfigurationError:
    return ConfigurationError(
        f"worker {index} is to train something else than the chief",
        where=name(cluster),
        fix="start all workers with the same --job, from the same image",
    )


def _call_chief(cluster: Cluster, job: str, seconds: float, deadline: float) -> None:
    host, _, port = cluster.workers[0].rpartition(":")
    while (left := deadline - time.monotonic()) > 0:
        try:
            connection = socket.create_connection((host.strip("[]"), int(port)), timeout=left)
        except OSError:
            time.sleep(min(RETRY_SECONDS, left))
            continue
        with connection:
            _send(connection, {"index": cluster.index, "job": job})
            answer = _receive(connection, deadline - time.monotonic())
        if answer.get("go"):
            return
        if isinstance(absent := answer.get("missing"), list):
            raise _missing(cluster, seconds, absent)
        if "another_job" in answer:
            raise _another_job(cluster, answer["another_job"])
        # The chief ended before all were there, or it is not the chief that listens: it may come again.
        time.sleep(RETRY_SECONDS)
    raise _missing(cluster, seconds, [0])
