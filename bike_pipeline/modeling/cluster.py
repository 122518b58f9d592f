"""Which processes train together: TensorFlow's TF_CONFIG, read, checked and written.

Kubeflow Trainer has no runtime for TensorFlow (kubeflow/trainer#2443): its `torch`, `jax` and `mpi` policies set
variables of their frameworks, and nothing sets TF_CONFIG. What every pod of a TrainJob does have is the index that
Kubernetes gives the pods of an Indexed Job, and host names that JobSet makes of the job's name and that index; the
cluster is put together from these.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bike_pipeline.errors import ConfigurationError

TF_CONFIG = "TF_CONFIG"
# Set by Kubernetes in the pods of an Indexed Job.
COMPLETION_INDEX = "JOB_COMPLETION_INDEX"
# Set by our training runtime from the labels that JobSet puts on its pods.
JOBSET_NAME = "JOBSET_NAME"
REPLICATED_JOB_NAME = "REPLICATED_JOB_NAME"
_EXAMPLE = '{"cluster": {"worker": ["host-0:2222", "host-1:2222"]}, "task": {"type": "worker", "index": 0}}'


@dataclass(frozen=True)
class Cluster:
    """The addresses (host:port) of the processes that train one model together, and which of them this one is."""

    workers: tuple[str, ...]
    index: int

    @property
    def is_chief(self) -> bool:
        """Whether this process, the first, is the one that writes the model."""
        return self.index == 0

    def tf_config(self) -> str:
        """Return the cluster as TensorFlow reads it from TF_CONFIG."""
        return json.dumps({"cluster": {"worker": self.workers}, "task": {"type": "worker", "index": self.index}})

    def silent(self, seconds: float) -> tuple[str, ...]:
        """Return the other workers that nobody answers at, each asked for at most `seconds`."""
        others = (address for index, address in enumerate(self.workers) if index != self.index)
        return tuple(address for address in others if not _answers(address, seconds))


def _answers(address: str, seconds: float) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=seconds):
            return True
    except OSError:
        return False


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
    """Return the cluster that TF_CONFIG describes; a `chief` comes before the `worker`s.

    Raises:
        ConfigurationError: it is not JSON of that form, has tasks of another kind, or names fewer than two workers.
    """
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

    Args:
        environment: the pod's variables.
        nodes: `numNodes` of the TrainJob.
        port: where every worker listens.

    Raises:
        ConfigurationError: a variable is missing or the index is not below `nodes`.
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
