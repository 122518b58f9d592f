"""A device that follows a channel on a real web server."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bike_pipeline.edge import channel
from bike_pipeline.edge.bundle import Bundle
from bike_pipeline.edge.device import Device
from bike_pipeline.edge.updates import UpdateError
from tests.edge.making import DAYS, Key
from tests.edge.web import Web, serving


class World:
    """A channel on a web server and a device that follows it."""

    def __init__(self, folder: Path, web: Web, key: Key, bundles: dict[int, Bundle]) -> None:
        self.base, self.web, self.key, self.bundles = folder / "edge", web, key, bundles
        self.url = f"{web.url}/stable"
        self.state = folder / "state"
        self.device = Device(self.state, key.public, lambda _: None)

    def push(self, version: int, name: str = "stable") -> None:
        channel.publish(self.base, name, self.bundles[version], self.key.signer, self.key.trusted, DAYS)

    def version(self) -> int:
        """Return the version that the device serves."""
        return int(json.loads((self.device.start() / "manifest.json").read_text())["model"]["version"])

    def left(self) -> list[str]:
        """Return what lies beside the current and the previous bundle."""
        kept = {self.device.current(), self.device._linked("previous")}
        found = [*(self.state / "releases").iterdir(), *(self.state / "downloads").iterdir()]
        return [path.name for path in found if path.name not in kept]


@contextmanager
def following(folder: Path, key: Key, bundles: dict[int, Bundle], monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Have a channel with the first bundle on a web server, and a device that waits for nothing."""
    monkeypatch.setattr("bike_pipeline.edge.updates.time.sleep", lambda _: None)
    (folder / "edge").mkdir()
    with serving(folder / "edge") as web:
        world = World(folder, web, key, bundles)
        world.push(1)
        yield world


def command(world: World, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    (world.state.parent / "signing.pub").write_bytes(world.key.pem)
    call = [sys.executable, "-m", "bike_pipeline.edge.device", *arguments, "--state", str(world.state)]
    if arguments[0] != "status":
        call += ["--key", str(world.state.parent / "signing.pub")]
    return subprocess.run(call, capture_output=True, text=True, check=False, timeout=120, **options)


def failing_update(world: World, told: str, good: int = 1) -> None:
    """Check that an update fails with that message and the device serves what it did."""
    with pytest.raises(UpdateError, match=told):
        world.device.update(world.url)
    assert world.version() == good


def changed_bytes(path_end: str, at: int) -> Any:
    def change(path: str, content: bytes) -> bytes:
        if not path.endswith(path_end):
            return content
        return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]

    return change


def later(monkeypatch: pytest.MonkeyPatch, days: float) -> None:
    """Set the clock of devices and publishers forward."""
    there = datetime.now(UTC) + timedelta(days=days)
    monkeypatch.setattr("bike_pipeline.edge.updates.now", lambda: there)
