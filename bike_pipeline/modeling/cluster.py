"""Which processes train together, by TensorFlow's TF_CONFIG, and how they come together within a bounded time.

Kubeflow Trainer has no runtime for TensorFlow (kubeflow/trainer#2443): its `torch`, `jax` and `mpi` policies set
variables of their frameworks, and nothing sets TF_CONFIG. What every pod of a TrainJob does have is the index that
Kubernetes gives the pods of an Indexed Job, and host names that JobSet makes of the job's name and that index; the
cluster is put together from these.

TensorFlow waits for absent workers without end, and with the interpreter locked, so that no thread of ours could end
the wait. So the workers meet before it starts: each calls the chief, at the address where TensorFlow will listen a
moment later, and says who it is and what it is to train; when all are there, the chief lets them go.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bike_pipeline.errors import ConfigurationError, StageError

TF_CONFIG = "TF_CONFIG"
# Set by Kubernetes in the pods of an Indexed Job.
COMPLETION_INDEX = "JOB_COMPLETION_INDEX"
# Set by our training runtime from the labels that JobSet puts on its pods.
JOBSET_NAME = "JOBSET_NAME"
REPLICATED_JOB_NAME = "REPLICATED_JOB_NAME"
# The chief's verdict reaches the others before they give up by themselves.
GRACE_SECONDS = 2.0
RETRY_SECONDS = 0.2
# A line of ours is some hundred bytes; whoever sends more is somebody else.
LINE_BYTES = 4096
HELLO_SECONDS = 5.0
_EXAMPLE = '{"cluster": {"worker": ["host-0:2222", "host-1:2222"]}, "task": {"type": "worker", "index": 0}}'


class PeerLostError(StageError):
    """Another worker is absent or lost; its own log says why."""


@dataclass(frozen=True)
class Cluster:
    """The addresses (host:port) of the processes that train one model together, and which of them this one is."""

    workers: tuple[str, ...]
    index: int

    @property
    def is_chief(self) -> bool:
        """Whether this process, the first, is the one that writes the model."""
        return self.index == 0

    @property
    def name(self) -> str:
        """This process's name among the workers."""
        return f"worker {self.index} of {len(self.workers)}"

    def tf_config(self) -> str:
        """Return the cluster as TensorFlow reads it from TF_CONFIG."""
        return json.dumps({"cluster": {"worker": self.workers}, "task": {"type": "worker", "index": self.index}})

    def silent(self, seconds: float) -> tuple[str, ...]:
        """Return the other workers that nobody answers at, each asked for at most `seconds`."""
        others = (address for index, address in enumerate(self.workers) if index != self.index)
        return tuple(address for address in others if not _answers(address, seconds))


def _connect(address: str, seconds: float) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=seconds)


def _answers(address: str, seconds: float) -> bool:
    try:
        _connect(address, seconds).close()
    except OSError:
        return False
    return True


def _wrong(what: str, where: str = TF_CONFIG) -> ConfigurationError:
    return ConfigurationError(what, where=where, fix=f"it looks like {_EXAMPLE}")


def _is_address(value: Any) -> bool:
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    return bool(host) and port.isascii() and port.isdigit() and 0 < int(port) < 65536


def _checked(workers: Sequence[Any], index: int, where: str) -> Cluster:
    for address in workers:
        if not _is_address(address):
            raise _wrong(f"{address!r} is no host:port", where)
    if len(set(workers)) != len(workers):
        raise _wrong("two workers have the same address", where)
    if len(workers) < 2:
        count = "is one" if workers else "are none"
        raise _wrong(f"multi-worker training needs at least two workers, and there {count}", where)
    return Cluster(tuple(workers), index)


def from_tf_config(text: str) -> Cluster:
    """Return the cluster that TF_CONFIG describes, a `chief` before the `worker`s; ConfigurationError if it is none."""
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise _wrong(f"not JSON ({error})") from None
    cluster, task = (config.get(name) if isinstance(config, dict) else None for name in ("cluster", "task"))
    if not isinstance(cluster, dict) or not isinstance(task, dict):
        raise _wrong("it must hold 'cluster' and 'task'")
    if unknown := sorted(set(cluster) - {"chief", "worker"}):
        raise _wrong(f"tasks of the kind {', '.join(unknown)} take no part in multi-worker training")
    kind, index = task.get("type"), task.get("index")
    if kind not in cluster:
        raise _wrong(f"the task's type is {kind!r}, and the cluster has {', '.join(cluster) or 'no tasks'}")
    chief, workers = (cluster.get(name, []) for name in ("chief", "worker"))
    if not isinstance(chief, list) or not isinstance(workers, list) or len(chief) > 1:
        raise _wrong("'worker' must be a list of addresses, and 'chief' a list of one")
    if type(index) is not int or not 0 <= index < len(cluster[kind]):
        raise _wrong(f"the task's index is {index!r}, and there are {len(cluster[kind])} tasks of the type {kind}")
    return _checked([*chief, *workers], index + len(chief) if kind == "worker" else index, TF_CONFIG)


def from_train_job(environment: Mapping[str, str], nodes: int, port: int) -> Cluster:
    """Return the cluster of a TrainJob's pods: `JOBSET-JOB-0-INDEX.JOBSET`, as JobSet names their hosts.

    The `environment` is the pod's, `nodes` the TrainJob's `numNodes`; every worker listens at `port`. A variable that
    is missing, or an index that is not below `nodes`, is a ConfigurationError.
    """
    for name in (JOBSET_NAME, REPLICATED_JOB_NAME, COMPLETION_INDEX):
        if not environment.get(name):
            raise ConfigurationError(
                "this variable is missing, so the worker does not know whom it trains with",
                where=name,
                fix=f"start the workers by a TrainJob on the runtime in configs/kubernetes/, or set {TF_CONFIG}",
            )
    job_set, job, index = (environment[name] for name in (JOBSET_NAME, REPLICATED_JOB_NAME, COMPLETION_INDEX))
    workers = [f"{job_set}-{job}-0-{number}.{job_set}:{port}" for number in range(nodes)]
    if not index.isdigit() or int(index) >= nodes:
        raise ConfigurationError(
            f"the index is {index!r}, and there are {nodes} nodes",
            where=COMPLETION_INDEX,
            fix="--nodes must be the TrainJob's numNodes",
        )
    return _checked(workers, int(index), "--nodes")


def on_this_machine(count: int) -> list[Cluster]:
    """Return the clusters of `count` processes on this machine, one each, at ports that are free now.

    The ports are drawn together, so that none is drawn twice; between this call and the workers' start another program
    may take one, and the worker then says so.
    """
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        workers = tuple(f"127.0.0.1:{one.getsockname()[1]}" for one in sockets)
    return [Cluster(workers, index) for index in range(count)]


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
        where=cluster.name,
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
            where=cluster.name,
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
        where=cluster.name,
        fix="start all workers with the same --job, from the same image",
    )


def _call_chief(cluster: Cluster, job: str, seconds: float, deadline: float) -> None:
    while (left := deadline - time.monotonic()) > 0:
        try:
            connection = _connect(cluster.workers[0], left)
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
