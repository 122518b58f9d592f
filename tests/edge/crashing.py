"""Kills updates: run as `python -m tests.edge.crashing URL KEY FOLDER`, prints one JSON object.

URL serves a channel as it was after one push (`1/stable`) and after two (`2/stable`). Every file operation below FOLDER
is a point to die at. For each point a child process is killed there with SIGKILL; then another child looks at what the
device serves, and updates again.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import sys
import tarfile  # noqa: F401 - imported before the forks, so that no child has to
from pathlib import Path
from typing import Any

from bike_pipeline.edge.device import Device
from bike_pipeline.edge.updates import UpdateError, read_key
from tests.data.crashing import in_child

EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink"}


def die_at(point: int, folder: str) -> None:
    """Kill this process at its `point`-th file operation below `folder`."""
    left = point

    def count() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        # A tree is removed by names relative to an open folder; a link is made at the second argument.
        paths = [str(argument) for argument in arguments[:2]]
        if event in EVENTS and (paths[0].startswith(folder) or paths[-1].startswith(folder) or event == "os.remove"):
            count()

    real_fsync = os.fsync

    def fsync(descriptor: int) -> None:
        count()
        real_fsync(descriptor)

    os.fsync = fsync
    sys.addaudithook(hook)


def device_at(state: Path, key: Path) -> Device:
    """Return a device that only checks signatures and hashes."""
    return Device(state, read_key(key), lambda _: None)


def update(state: Path, key: Path, url: str, point: int | None = None) -> None:
    """Update, and be killed at a point on the way."""
    device = device_at(state, key)
    if point is not None:
        die_at(point, str(state))
    device.update(url)


def served(state: Path, key: Path) -> int:
    """Return the version that a device serves; 0 for none."""
    try:
        folder = device_at(state, key).start()
    except UpdateError:
        return 0
    return int(json.loads((folder / "manifest.json").read_text())["model"]["version"])


def recovered(state: Path, key: Path, url: str, target: int) -> None:
    """Check that the device serves the version before or the new one, and that the next update brings the new one."""
    found = served(state, key)
    assert found in (target - 1, target), found
    update(state, key, url)
    assert served(state, key) == target
    device = device_at(state, key)
    left = {path.name for path in (*device.releases.iterdir(), *device.downloads.iterdir())}
    assert left <= {device.current(), device.status()["previous"]}, left
    assert not list(state.glob(".*")), list(state.glob(".*"))


def main(url: str, key: Path, folder: Path) -> None:
    """Kill an update at every point, and check the device after each."""
    # Imports what a child would import again each time.
    read_key(key).public_bytes_raw()
    results = {}
    for target in (1, 2):
        before, state, address = folder / "before", folder / "state", f"{url}/{target}/stable"
        for point in itertools.count():
            if before.exists():
                shutil.copytree(before, state, symlinks=True)
            else:
                state.mkdir()
            status = in_child(update, state, key, address, point)
            if in_child(recovered, state, key, address, target):
                raise SystemExit(f"version {target}, killed at point {point}: the device did not recover")
            if not os.WIFSIGNALED(status):
                results[str(target)] = point
                break
            shutil.rmtree(state)
        shutil.rmtree(before, ignore_errors=True)
        state.rename(before)
    print(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
