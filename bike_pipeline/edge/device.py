"""Takes models from a channel and keeps a good one, whatever happens: the device's side of `bike-pipeline push edge`.

    bike-edge update --channel-url https://…/stable --key signing.pub --state DIR    fetch, check and swap
    bike-edge start --state DIR --key signing.pub                                    print the folder to serve from
    bike-edge status --state DIR

`DIR/current` is a link to the bundle to serve from, `DIR/previous` to the one before. A bundle becomes current when its
signature, every byte and its golden rows were found right; until then, and whenever something fails, the one before
stays. On a device this is one file, bike-edge.pyz, that needs Python 3.11, numpy, ai-edge-litert and cryptography: it
imports nothing of bike_pipeline but the modules that are packed with it.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bike_pipeline.edge import updates
from bike_pipeline.edge.updates import MANIFEST, RefusedError, UpdateError

CHECK_SECONDS = 300
OK, FAILED, NO_RUNTIME = 0, 19, 9
_SHA256_LENGTH = 64


def check_in_child(folder: Path) -> None:
    """Run the golden rows in a process of its own, which a broken model may crash or hang without harm."""
    command = [sys.executable, "-m", "bike_pipeline.edge.device", "check", "--folder", str(folder)]
    # Where the package lies, which on a device is inside bike-edge.pyz.
    places = [str(Path(__file__).absolute().parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=CHECK_SECONDS, env=environment
        )
    except subprocess.TimeoutExpired:
        raise RefusedError(f"the golden rows took more than {CHECK_SECONDS} seconds") from None
    # LiteRT itself prints there, too.
    errors = [line.removeprefix("error: ") for line in done.stderr.splitlines() if line.startswith("error: ")]
    reason = errors[-1] if errors else f"the model ended its process with {done.returncode}"
    if done.returncode == NO_RUNTIME:
        raise UpdateError(reason)
    if done.returncode:
        raise RefusedError(reason)


def check_expiry(payload: dict[str, Any]) -> None:
    """Raise an UpdateError if the channel file has expired; warn if it cannot."""
    expires, today = updates.expires_of(payload), updates.now()
    if expires is None:
        print(
            "warning: channel.json never expires, so a withheld update goes unnoticed; push it again with a release "
            "that sets `expires`",
            file=sys.stderr,
        )
    elif today >= expires:
        raise UpdateError(
            f"channel.json: it expired at {payload['expires']}, and the clock here says {today:%Y-%m-%dT%H:%M:%SZ}: "
            "newer files are withheld, the publisher stopped renewing, or this clock is wrong; what is current stays"
        )


def sync(folder: Path) -> None:
    """Make what was written into a folder survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Device:
    """The state of one device, in one folder."""

    def __init__(self, state: Path, key: Any, check: Callable[[Path], None] = check_in_child) -> None:
        """Name the folder, the key that is believed, and what a bundle must pass besides its hashes."""
        self.state, self.key, self.check = state, key, check
        self.releases, self.downloads = state / "releases", state / "downloads"

    def update(self, channel_url: str, retry: bool = False) -> dict[str, Any]:
        """Bring the device to what the channel names; every failure leaves what is current.

        `retry` tries a bundle again that this device refused before.
        """
        base = updates.address_of(channel_url)
        with self._locked():
            payload = updates.read_channel(updates.fetch_channel(f"{base}/channel.json"), self.key)
            memory = self._accept(payload)
            check_expiry(payload)
            sha256 = payload["bundle"]["sha256"]
            if sha256 in memory["refused"] and not retry:
                raise UpdateError(f"refused here before ({memory['refused'][sha256]}); --retry takes it again")
            updates.check_versions(payload["minimum"])
            changed = self.current() != sha256 or not self._is_good(sha256)
            if changed:
                self._place(base, payload["bundle"])
                refused = {name: why for name, why in memory["refused"].items() if name != sha256}
                try:
                    self.check(self.releases / sha256)
                except RefusedError as error:
                    self._remember({**memory, "refused": {**refused, sha256: str(error)}})
                    raise
                self._remember({**memory, "refused": refused})
                self._swap(sha256)
            # Also of what an update left that was killed after its swap.
            self._clean()
            manifest = json.loads((self.releases / sha256 / MANIFEST).read_bytes())
            return {
                "changed": changed,
                "sequence": payload["sequence"],
                "bundle": sha256,
                "model": manifest["model"],
                "forced": manifest["forced"],
            }

    def start(self) -> Path:
        """Return the folder to serve from: the current bundle, or the one before if that is not good any more."""
        current = self.current()
        if current and self._is_good(current):
            return self.releases / current
        with self._locked(wait=True):
            for name in ("current", "previous"):
                found = self._linked(name)
                if found and self._is_good(found):
                    if name == "previous":
                        self._link("current", found)
                    return self.releases / found
        raise UpdateError(f"{self.state}: there is no good bundle; run update")

    def current(self) -> str | None:
        """Return the SHA-256 of the current bundle; None if there is none."""
        return self._linked("current")

    def status(self) -> dict[str, Any]:
        """Return what the device holds and remembers; nothing is checked."""
        return {"current": self.current(), "previous": self._linked("previous"), **self._memory()}

    def _linked(self, name: str) -> str | None:
        try:
            found = (self.state / name).readlink().name
        except OSError:
            return None
        return found if len(found) == _SHA256_LENGTH else None

    def _link(self, name: str, sha256: str) -> None:
        aside = self.state / f".{name}"
        aside.unlink(missing_ok=True)
        aside.symlink_to(Path("releases") / sha256)
        aside.replace(self.state / name)
        sync(self.state)

    def _swap(self, sha256: str) -> None:
        current = self.current()
        # What is not good is no place to fall back to.
        if current and current != sha256 and self._is_whole(current) and current not in self._memory()["refused"]:
            self._link("previous", current)
        self._link("current", sha256)

    def _is_whole(self, sha256: str) -> bool:
        try:
            updates.verify_release(self.releases / sha256, self.key)
        except UpdateError:
            return False
        return True

    def _is_good(self, sha256: str) -> bool:
        try:
            updates.verify_release(self.releases / sha256, self.key)
            self.check(self.releases / sha256)
        except UpdateError as error:
            print(f"{sha256[:12]} is not good: {error}", file=sys.stderr)
            return False
        return True

    def _memory(self) -> dict[str, Any]:
        try:
            memory: dict[str, Any] = json.loads((self.state / "state.json").read_bytes())
        except FileNotFoundError:
            return {"channel": None, "sequence": 0, "payload": None, "refused": {}}
        except (OSError, ValueError) as error:
            raise UpdateError(
                f"{self.state}/state.json: cannot be read ({error}); remove it, which forgets what was seen"
            ) from None
        return memory

    def _remember(self, memory: dict[str, Any]) -> None:
        updates.write(self.state / ".state.json", json.dumps(memory, indent=2).encode())
        (self.state / ".state.json").replace(self.state / "state.json")
        sync(self.state)

    def _accept(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Remember a channel file that is not older than any seen, and return the memory."""
        memory = self._memory()
        digest = hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()
        if memory["channel"] not in (None, payload["channel"]):
            raise UpdateError(f"channel.json: it is of {payload['channel']}, this device follows {memory['channel']}")
        if payload["sequence"] < memory["sequence"]:
            raise UpdateError(f"channel.json: {payload['sequence']} is older than {memory['sequence']}, seen before")
        if payload["sequence"] == memory["sequence"] and digest != memory["payload"]:
            raise UpdateError(f"channel.json: another file with the number {payload['sequence']} was seen before")
        accepted = {**memory, "channel": payload["channel"], "sequence": payload["sequence"], "payload": digest}
        accepted["expires"] = payload.get("expires")
        if accepted != memory:
            self._remember(accepted)
        return accepted

    def _place(self, base: str, bundle: dict[str, Any]) -> None:
        """Have the bundle's files complete in its release folder."""
        sha256 = bundle["sha256"]
        if self._is_whole(sha256):
            return
        archive, incoming = self.downloads / f"{sha256}.tar", self.releases / ".incoming"
        shutil.rmtree(incoming, ignore_errors=True)
        self.downloads.mkdir(parents=True, exist_ok=True)
        incoming.mkdir(parents=True)
        try:
            updates.download(f"{base}/bundles/{sha256}.tar", archive, bundle["size"], sha256)
            updates.extract(archive, incoming, self.key)
        except OSError:
            # A full disk gets its space back.
            archive.unlink(missing_ok=True)
            shutil.rmtree(incoming, ignore_errors=True)
            raise
        for folder in (incoming, *(path for path in incoming.rglob("*") if path.is_dir())):
            sync(folder)
        shutil.rmtree(self.releases / sha256, ignore_errors=True)
        incoming.replace(self.releases / sha256)
        sync(self.releases)

    def _clean(self) -> None:
        kept = {self.current(), self._linked("previous")}
        folders = [folder for folder in (self.releases, self.downloads) if folder.is_dir()]
        for path in [path for folder in folders for path in folder.iterdir()]:
            if path.name not in kept:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    @contextlib.contextmanager
    def _locked(self, wait: bool = False) -> Iterator[None]:
        self.state.mkdir(parents=True, exist_ok=True)
        with (self.state / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                raise UpdateError(f"{self.state}: another update is running") from None
            yield


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bike-edge", description="Take bike-demand models from a channel.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, sentence in (
        ("update", "Bring this device to what the channel names."),
        ("start", "Print the folder to serve from, falling back to the bundle before."),
        ("status", "Print what this device holds."),
    ):
        command = commands.add_parser(name, help=sentence)
        command.add_argument("--state", type=Path, required=True, help="folder of this device's bundles")
        if name != "status":
            command.add_argument("--key", type=Path, required=True, help="public key (PEM) that signs bundles")
    update = commands.choices["update"]
    update.add_argument("--channel-url", required=True, help="address of the channel's folder, or a folder")
    update.add_argument("--retry", action="store_true", help="take a bundle that was refused here before")
    commands.add_parser("check", help="Run a bundle's golden rows.").add_argument("--folder", type=Path, required=True)
    return parser


def run(arguments: argparse.Namespace) -> Any:
    """Do what was asked for and return what to print."""
    if arguments.command == "check":
        return {"max_relative_difference": updates.run_golden_rows(arguments.folder)}
    device = Device(arguments.state, None if arguments.command == "status" else updates.read_key(arguments.key))
    if arguments.command == "update":
        return device.update(arguments.channel_url, arguments.retry)
    return str(device.start()) if arguments.command == "start" else device.status()


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return 0, 19 if something failed and nothing was changed, 9 without a runtime."""
    try:
        result = run(_parser().parse_args(arguments))
    except ImportError as error:
        print(f"error: {error}; pip install ai-edge-litert numpy cryptography", file=sys.stderr)
        return NO_RUNTIME
    except OSError as error:
        print(f"error: {error.filename or ''}: {error.strerror or error}; what was current stays", file=sys.stderr)
        return FAILED
    except (UpdateError, ValueError, RuntimeError, KeyError) as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    print(result if isinstance(result, str) else json.dumps(result, indent=2))
    return OK


if __name__ == "__main__":
    sys.exit(main())
