"""A base path with two versions, and the logs of a gateway and its servers, made in the process of the test."""

from __future__ import annotations

import datetime as dt
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bike_pipeline.model_registry import ModelRegistry
from bike_pipeline.settings.rollout import RolloutSettings, RolloutStepSettings
from tests.rollout.making import push

STABLE, CANDIDATE = 1, 2
MODEL = "bike_demand"
QUICK = RolloutSettings(
    steps=(
        RolloutStepSettings(percent=1, requests=50, minutes=0),
        RolloutStepSettings(percent=10, requests=50, minutes=0),
        RolloutStepSettings(percent=50, requests=50, minutes=0),
    ),
    slowest=1,
)


def base_path(folder: Path) -> str:
    """Return a base path where version 1 is stable and version 2 is validated."""
    base = folder / "serving" / MODEL
    push(base, STABLE)
    registry = ModelRegistry(base)
    registry.begin()
    push(base, CANDIDATE)
    registry.set_validated(CANDIDATE, passed=True, reason="it passed")
    return str(base)


def access(
    identity: str, track: str, at: dt.datetime, status: int = 200, milliseconds: float = 2.0, **about: Any
) -> dict[str, Any]:
    """Return a line of the gateway's access log."""
    return {
        "@timestamp": f"{at:%Y-%m-%dT%H:%M:%S.%f}Z",
        "event": {"dataset": "bike_pipeline.gateway", "kind": "event", "duration": int(milliseconds * 1e6)},
        "http": {"request": {"id": identity, "method": "POST"}, "response": {"status_code": status}},
        "url": {"path": f"/v1/models/{MODEL}:predict"},
        "bike": {"track": track, "revision": 3, **about},
    }


def answered(
    identity: str,
    version: int,
    at: dt.datetime,
    answer: float | None = 100.0,
    code: str = "OK",
    hour: int = 8,
    milliseconds: float = 1.0,
) -> dict[str, Any]:
    """Return a line of a request log, of one row."""
    about: dict[str, Any] = {"schema": 2, "sampling_rate": 1.0, "model": MODEL, "row": 0}
    line = {
        "@timestamp": f"{at:%Y-%m-%dT%H:%M:%S.%f}Z",
        "event": {
            "dataset": "bike_pipeline.requests",
            "outcome": "success" if code == "OK" else "failure",
            "id": f"{identity}/0",
            "duration": int(milliseconds * 1e6),
        },
        "http": {"request": {"id": identity}},
        "bike": about,
    }
    if code != "OK":
        return line | {"error": {"code": code}}
    about |= {"version": version, "answer": answer, "features": {"yr": 1, "mnth": 4, "day": 1, "hr": hour}}
    return line


class Logs:
    """The logs of a workspace's gateway and of its servers.

    Attributes:
        gateway: the access log.
        requests: the folder of the request logs.
    """

    def __init__(self, folder: Path) -> None:
        self.gateway, self.requests = folder / "logs" / "gateway.jsonl", folder / "monitoring" / "requests"
        self.gateway.parent.mkdir(parents=True, exist_ok=True)
        self.requests.mkdir(parents=True, exist_ok=True)
        self._count, self._latest = 0, 0.0

    def add(self, access_lines: Iterable[dict[str, Any]] = (), rows: Iterable[dict[str, Any]] = ()) -> None:
        """Add lines."""
        for path, lines in ((self.gateway, access_lines), (self.requests / "r.jsonl", rows)):
            with path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)
            # As if they had been written when they say.
            os.utime(path, times=(time.time(), max(time.time(), self._latest + 1)))

    def ask(
        self,
        count: int,
        at: dt.datetime,
        *,
        track: str = "canary",
        failed: int = 0,
        refused: int = 0,
        answer: float | None = 100.0,
        milliseconds: float = 2.0,
    ) -> None:
        """Add requests to a track, of which the first ones failed, or were refused."""
        version = STABLE if track == "stable" else CANDIDATE
        names = [f"{track}-{self._count + number}" for number in range(count)]
        self._count += count
        self._latest = max(self._latest, at.timestamp())
        moments = [at + dt.timedelta(microseconds=number) for number in range(count)]
        how = [(503, "UNAVAILABLE")] * failed + [(400, "INVALID_ARGUMENT")] * refused
        how += [(200, "OK")] * (count - len(how))
        asked = list(zip(names, moments, how, strict=True))
        self.add(
            [access(name, track, moment, status, milliseconds) for name, moment, (status, _) in asked],
            [answered(name, version, moment, answer, code) for name, moment, (_, code) in asked],
        )
