"""What a Flink cluster says of itself, asked once before a run.

Beam's job server tries an unreachable cluster for two minutes, and ends with a Java exception without its address.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any, Final

from bike_pipeline.errors import ClusterError, ConfigurationError
from bike_pipeline.settings.beam import FLINK_LOCAL, BeamSettings

_SECONDS: Final = 10


@dataclass(frozen=True)
class Overview:
    """A cluster's answer.

    Attributes:
        version: Flink's version, such as 1.20.1.
        task_managers: how many there are.
        slots: how many tasks they can work on at once, all together.
    """

    version: str
    task_managers: int
    slots: int


def check(beam: BeamSettings) -> None:
    """Stop where the cluster of the settings cannot be reached, or cannot work with the other settings.

    Raises:
        ClusterError: nothing answers there, or something else than Flink.
        ConfigurationError: the job server is for another Flink, or LOOPBACK workers would serve several task managers.
    """
    if beam.flink.master == FLINK_LOCAL or not beam.own_job_server:
        # A job server elsewhere may reach a cluster that this machine does not see.
        return
    where = f"beam.flink.master {beam.flink.master}"
    found = overview(beam.flink.master)
    release = ".".join(found.version.split(".")[:2])
    if not beam.job_server.endpoint and release != beam.flink.version:
        raise ConfigurationError(
            f"the cluster is Flink {found.version}, and the job server is for Flink {beam.flink.version}",
            where=where,
            fix=f"set beam.flink.version to {release} and fetch its job server: "
            f"make flink ARGS='--set beam.flink.version={release}'",
        )
    if beam.workers.environment == "LOOPBACK" and found.task_managers > 1:
        raise ConfigurationError(
            f"the cluster has {found.task_managers} task managers, and LOOPBACK workers can serve one: each of them "
            "gives its workers the same names",
            where=where,
            fix="set beam.workers.environment to DOCKER, PROCESS or EXTERNAL, or give the cluster one task manager",
        )


def overview(master: str) -> Overview:
    """Return what the REST endpoint of a cluster answers to one GET of /overview."""
    where = f"beam.flink.master {master}"
    fix = "start the cluster, or correct host and port: they are those of its REST endpoint, 8081 by default"
    address = master if "://" in master else f"http://{master}"
    # A cluster is not behind the proxy that the environment may name; Flink's own client knows none either.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{address.rstrip('/')}/overview", timeout=_SECONDS) as answer:
            told: Any = json.load(answer)
        return Overview(str(told["flink-version"]), int(told["taskmanagers"]), int(told["slots-total"]))
    except urllib.error.HTTPError as error:
        raise ClusterError(f"what answers there is no Flink (HTTP {error.code})", where=where, fix=fix) from None
    except OSError as error:
        reason = getattr(error, "reason", error)
        told = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
        raise ClusterError(f"no Flink answers there ({told.lower()})", where=where, fix=fix) from None
    except (ValueError, KeyError, TypeError):
        raise ClusterError("what answers there is no Flink", where=where, fix=fix) from None
