"""The whole life of a model, offline, as people and programs would live it: `make demo`.

The first half of the data trains a model, a server answers with it, and the second half arrives in a bucket (Google's
storage, by its emulator on loopback). What follows, follows by itself: a run, a promotion. Then three things go wrong.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

BUCKET = "rides"
ASKED_UNTIL = "2012-10-01"
# What a run by a trigger may take on a busy machine, in seconds.
_PATIENCE = 900
_CHANGED = 22
_NOT_PUSHED = 6


class DemoError(Exception):
    """A step did not come to what the story says of it."""


class Story:
    """The command line on a workspace of its own, and what is told between the calls."""

    def __init__(self, folder: Path) -> None:
        """Begin in a folder, which is emptied first."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.folder, self._number = folder, 0
        self.workspace = folder / "workspace"
        self._settings = ["--set", f"workspace={self.workspace}"]

    def tell(self, text: str) -> None:
        """Print what happens next."""
        self._number += 1
        print(f"\n{self._number}. {text}", flush=True)

    def command(self, *arguments: str) -> list[str]:
        """Return a command of the product on this workspace."""
        return [sys.executable, "-m", "bike_pipeline.cli", *arguments, *self._settings]

    def call(self, *arguments: str, codes: Sequence[int] = (0,), show: Iterable[str] = ()) -> str:
        """Call a command, print the lines of it that hold one of the texts in `show`, and return what it printed."""
        print(f"   $ bike-pipeline {' '.join(_short(text) for text in arguments)}", flush=True)
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False)
        if done.returncode not in codes:
            raise DemoError(f"exit code {done.returncode} of {arguments[0]}: {(done.stderr or done.stdout).strip()}")
        for line in (done.stdout + done.stderr).splitlines():
            if any(text in line for text in show):
                print(f"     {line.strip()}", flush=True)
        return done.stdout

    def result(self, *arguments: str, codes: Sequence[int] = (0,)) -> Any:
        """Return the JSON that a command prints."""
        return json.loads(self.call(*arguments, "--json", codes=codes))

    @contextmanager
    def background(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """Have a command run in the block; its end is asked for, and waited for."""
        print(f"   $ bike-pipeline {' '.join(_short(text) for text in arguments)} &", flush=True)
        log = (self.folder / f"{arguments[0]}.log").open("w", encoding="utf-8")
        with log, subprocess.Popen(self.command(*arguments), stdout=subprocess.PIPE, stderr=log, text=True) as process:
            try:
                yield process
            finally:
                process.send_signal(signal.SIGTERM)

    def wait_for(self, name: str) -> dict[str, Any]:
        """Return the newest event of a name when it has ended."""
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            done = subprocess.run(
                self.command("triggers", "list", "--json"), capture_output=True, text=True, check=True
            )
            events = [one for one in json.loads(done.stdout)["events"] if one["event"]["name"] == name]
            if events and events[-1]["state"] in ("promoted", "refused", "failed", "dead"):
                found: dict[str, Any] = events[-1]
                print(f"     {name}: {found['state']}, {_short(found['why'], 200)}", flush=True)
                return found
            time.sleep(3)
        raise DemoError(f"nothing became of {name} within {_PATIENCE} seconds; see {self.folder}/watch.log")


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


@contextmanager
def google_storage() -> Iterator[str]:
    """Run the emulator of Google's storage on loopback; yield its address."""
    # Else gcsfs asks a service that the emulator does not have, and waits. It looks at this when it is imported.
    os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
    from gcp_storage_emulator.server import create_server

    server = create_server("127.0.0.1", 0, in_memory=True, default_bucket=BUCKET)
    server.start()
    address = f"http://127.0.0.1:{server._api._httpd.server_address[1]}"  # noqa: SLF001 (it has no other name for it)
    os.environ["STORAGE_EMULATOR_HOST"] = address
    try:
        yield address
    finally:
        server.stop()


def upload(file: Path) -> None:
    """Put a file into the bucket, as any client of Google's storage does."""
    import gcsfs

    gcsfs.GCSFileSystem().put_file(str(file), f"{BUCKET}/uploads/{file.name}")


def parts_of(second: Path, folder: Path) -> tuple[Path, Path, Path]:
    """Write the hours of 2012 before `ASKED_UNTIL`, those from there on, and all with four weeks counted ninefold."""
    with second.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        names, rows = list(reader.fieldnames or ()), list(reader)
    before, after, poisoned = folder / "before.csv", folder / "after.csv", folder / "poisoned-2012.csv"
    _write(before, names, [row for row in rows if row["dteday"] < ASKED_UNTIL])
    _write(after, names, [row for row in rows if row["dteday"] >= ASKED_UNTIL])
    for row in rows:
        if "2012-11-01" <= row["dteday"] < "2012-11-29":
            counts = {name: 9 * int(row[name]) for name in ("casual", "registered")}
            row.update({name: str(number) for name, number in counts.items()}, cnt=str(sum(counts.values())))
    _write(poisoned, names, rows)
    return before, after, poisoned


def _write(file: Path, names: list[str], rows: list[dict[str, Any]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as target:
        writer = csv.DictWriter(target, names)
        writer.writeheader()
        writer.writerows(rows)


def live(story: Story) -> Path:
    """Live through all of it; return the page that tells it."""
    from bike_pipeline.data.embedded_dataset import split_demo

    second = split_demo(story.folder)[1]
    before, after, poisoned = parts_of(second, story.folder)
    with ExitStack() as stack:
        story.tell("The first half of the data, 2011, trains the first model.")
        story.call("run", "--demo", "first", show=("pushed", "MAE"))
        story.tell("It serves, and is asked for the hours of 2012 up to September.")
        server = stack.enter_context(story.background("serve", "--rest-port", "0", "--grpc-port", "0", "--json"))
        assert server.stdout is not None
        address = json.loads(server.stdout.readline())["rest"]
        # The request log keeps so many rows of a request.
        asking = ("--server", address, "--set", "serving.client.rows_per_request=100")
        story.call("predict", str(before), *asking)
        story.tell("The rentals of these hours become known: the monitor says what has changed, and what that costs.")
        story.call("monitor", "ingest", str(before), show=("labels",))
        autumn = ("monitor", "run", "--window", "14d", "--until", ASKED_UNTIL)
        story.call(*autumn, codes=(0, _CHANGED), show=("Changed", "remedy"))
        story.tell("So the labels that are known move its level, without a training.")
        story.call("feedback", "update", str(before), show=("version", "factor"))
        story.tell("The second half is uploaded to a bucket. Whoever watches it trains, judges and promotes by itself.")
        stack.enter_context(google_storage())
        watched = f"retraining.storage.sources=[gs://{BUCKET}/uploads]"
        triggers = "retraining.triggers=[storage]"
        polls = "retraining.storage.remote_seconds=1"
        watch = ("watch", "--set", watched, "--set", triggers, "--set", polls, "--json")
        watching = stack.enter_context(story.background(*watch))
        upload(second)
        expect(story.wait_for(second.name), "promoted")
        story.call("triggers", "explain", second.name, show=("→",))
        story.tell("The server has the new version, without a restart; the hours from October on are asked of it.")
        story.call("predict", str(after), *asking)
        story.call("feedback", "show", "--at", "2013-01-01", show=("labels", "weight"))
        story.tell("Somebody uploads four weeks counted ninefold: refused, and taken back.")
        upload(poisoned)
        expect(story.wait_for(poisoned.name), "refused")
        story.call("data", "list", show=("withdrawn",))
        watching.send_signal(signal.SIGTERM)
        watching.wait(_PATIENCE)
        story.tell("Somebody changes the settings for the worse: the candidate is not pushed.")
        settings = ("--set", "training.epochs=1", "--set", "training.architecture=deep")
        story.call("retrain", "--because", "one epoch is enough", *settings, codes=(_NOT_PUSHED,), show=("refused",))
        story.tell("A person goes back to the version before, and says why.")
        story.call("rollback", "--reason", "the labels of December are being counted again", show=("version",))
        story.call("history", show=("version", "promote", "rollback"))
        story.tell("One page tells it all.")
        page = story.folder / "monitor.html"
        story.call("monitor", "ingest", str(after), show=("labels",))
        story.call(
            "monitor", "run", "--window", "14d", "--output", str(page), codes=(0, _CHANGED), show=("Changed", "Fine")
        )
    return page


def expect(event: dict[str, Any], state: str) -> None:
    """Raise a DemoError where an event came to another state."""
    if event["state"] != state:
        raise DemoError(f"{event['event']['name']} is {event['state']} and not {state}: {event['why']}")


def main() -> int:
    """Live through the story; return the exit code."""
    began = time.monotonic()
    story = Story(Path("demo").absolute())
    try:
        page = live(story)
    except DemoError as failure:
        print(f"\ndemo: error: {failure}", file=sys.stderr)
        return 1
    print(f"\n{page}\nThe whole story took {time.monotonic() - began:.0f} s; everything stands in {story.folder}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
