"""`bike-pipeline watch` on a folder where everything goes wrong, for minutes: its memory, and how soon it sees what.

Each round drops some twenty things, as bad as people and programs make them. Exit code 1 where a file was lost, an
event came twice or the process ended.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bike_pipeline.data.embedded_dataset import embedded_bytes

ROWS = 24
# What is unpacked by a file of 16 KB.
_BOMB = 16 << 20
# Seconds before each change of a round. What is replaced was there for long enough to be looked at on a busy machine.
_PAUSES = (0.2, 0.3, 0.3, 20.0)


@dataclass
class Hostile:
    """Drops files into a folder, of other content in each round.

    Attributes:
        folder: the folder that is watched.
        named: names that must have an event or a note.
        whole: contents that must each have one event.
    """

    folder: Path
    named: set[str] = field(default_factory=set)
    whole: set[bytes] = field(default_factory=set)

    def rows(self, number: int) -> bytes:
        """Return a day of the data set as an upload, which no other number gives."""
        header, *lines = embedded_bytes().splitlines(keepends=True)
        first = number * ROWS % (len(lines) - ROWS)
        return header + b"".join(lines[first : first + ROWS])

    def write(self, name: str, content: bytes) -> Path:
        """Write a file as a whole."""
        path = self.folder / name
        path.write_bytes(content)
        self.named.add(name)
        return path

    def good(self, name: str, content: bytes) -> None:
        """Write a file that must become an event; what it holds may be refused."""
        self.write(name, content)
        self.whole.add(content)

    def drop(self, number: int) -> list[Callable[[], object]]:
        """Drop some twenty things; return what is done to them a moment later."""
        rows, mark = self.rows(number), f"{number:04d}"
        day = rows.splitlines(keepends=True)
        later: list[Callable[[], object]] = []

        half = self.write(f"half-{mark}.csv", rows[: len(rows) // 2])
        self.whole.add(rows)
        later.append(lambda: half.write_bytes(rows))

        moved = b"".join((day[0], *day[3:])) + mark.encode()
        self.whole.add(moved)
        part = self.write(f"moved-{mark}.csv.part", moved)
        later.append(lambda: part.rename(part.with_suffix("")))

        Path(self.folder / f"link-{mark}.csv").symlink_to("/etc/passwd")
        self.named.add(f"link-{mark}.csv")
        self.good(f"wrong-{mark}.csv", f"name,age\nsomebody,{number}\n".encode())
        with (self.folder / f"enormous-{mark}.csv").open("wb") as file:
            file.truncate(40 << 30)
        self.named.add(f"enormous-{mark}.csv")
        repeated = self.write(f"repeated-{mark}.csv", moved)
        later.append(lambda: os.utime(repeated))
        self.good(f"twin-a-{mark}.csv", b"".join(day[:9]) + mark.encode())
        self.good(f"twin-b-{mark}.csv", b"".join(day[:9]) + mark.encode())

        swapped = self.folder / f"swapped-{mark}.csv"
        self.good(swapped.name, b"".join(day[:5]) + mark.encode())
        other = b"".join(day[:6]) + mark.encode()

        def swap() -> None:
            aside = self.folder / f".{mark}.swap"
            aside.write_bytes(other)
            aside.replace(swapped)
            self.whole.add(other)

        later.append(swap)
        self.write(f"empty-{mark}.csv", b"")
        (self.folder / f"folder-{mark}.csv").mkdir()
        os.mkfifo(self.folder / f"pipe-{mark}.csv")
        self.named |= {f"folder-{mark}.csv", f"pipe-{mark}.csv"}
        self.write(f"unreadable-{mark}.csv", rows + b"1").chmod(0)
        self.good(f"bomb-{mark}.csv.gz", gzip.compress(bytes(_BOMB) + mark.encode(), 9))
        self.good(f"latin-{mark}.csv", day[0] + f"Straße {mark}\n".encode("latin-1"))
        self.good(f"nulls-{mark}.csv", day[0] + bytes(4096) + mark.encode())
        self.good(f"{'long' * 55}-{mark}.csv", b"".join(day[:7]) + mark.encode())
        self.good(f"two\nlines-{mark}.csv", b"".join(day[:8]) + mark.encode())
        self.good(f"Räder-{mark}-🚲.csv", b"".join(day[:10]) + mark.encode())
        path = os.fsencode(self.folder) + f"/bytes-{mark}-".encode() + b"\xff\xfe.csv"
        with open(path, "wb") as file:
            file.write(day[0] + mark.encode() + b"-bytes")
        self.named.add(os.fsdecode(os.path.basename(path)))
        self.whole.add(day[0] + mark.encode() + b"-bytes")
        self.good(f"header-{mark}.csv", day[0] + b"\n" * number)
        self.good(f"doubled-{mark}.csv", day[0].strip() + b"," + day[0] + mark.encode() + b"\n")
        return later


def _memory(process: int) -> dict[str, float]:
    """Return the resident memory of a process, in MB, its threads and its open files."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines)
    opened = len(list(Path(f"/proc/{process}/fd").iterdir()))
    return {"mb": int(found["VmRSS"].split()[0]) / 1024, "threads": int(found["Threads"]), "files": opened}


def measure(work: Path, minutes: float, every_seconds: float) -> dict[str, Any]:
    """Let the command watch a folder in `work` for some minutes; return what it took and what it saw."""
    from bike_pipeline.retraining.ledger import Ledger
    from bike_pipeline.retraining.ledger_tables import of_file

    folder, workspace = work / "uploads", work / "workspace"
    folder.mkdir()
    values = {
        "workspace": workspace,
        "retraining.triggers": "[storage]",
        "retraining.storage.sources": f"[{folder}]",
        "retraining.policy.runs_per_day": 10_000,
        "retraining.policy.least_new_rows": 0,
    }
    assigned = [part for name, value in values.items() for part in ("--set", f"{name}={value}")]
    command = [str(Path(sys.executable).with_name("bike-pipeline")), "watch", *assigned]
    hostile, taken, number = Hostile(folder), list[dict[str, float]](), 0
    with (work / "watch.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        ends = time.monotonic() + 60 * minutes
        while time.monotonic() < ends and process.poll() is None:
            later = hostile.drop(number)
            number += 1
            for pause, change in zip(_PAUSES, later, strict=True):
                time.sleep(pause)
                change()
            time.sleep(every_seconds)
            taken.append(_memory(process.pid))
        ended_early = process.poll() is not None
        process.send_signal(signal.SIGTERM)
    ledger = Ledger(of_file(workspace / "retraining" / "ledger.sqlite"))
    events, runs = ledger.events(), {run.number: run for run in ledger.runs()}
    digests = [one.event.digest for one in events]
    lost = {hashlib.sha256(content).hexdigest() for content in hostile.whole} - set(digests)
    written = {one.event.name: (folder / one.event.name) for one in events}
    seen = [one.first_seen - written[one.event.name].stat().st_mtime for one in events if _is_as_seen(one, written)]
    claimed = [runs[one.run].claimed_at - one.first_seen for one in events if one.run == 1]
    return {
        "minutes": minutes,
        "rounds": number,
        "memory_mb": [round(taken[0]["mb"]), round(taken[len(taken) // 2]["mb"]), round(taken[-1]["mb"])],
        "threads": [taken[0]["threads"], taken[-1]["threads"]],
        "open_files": [taken[0]["files"], taken[-1]["files"]],
        "events": len(events),
        "lost": len(lost),
        "twice": len(digests) - len(set(digests)),
        "runs": {state: sum(run.state == state for run in runs.values()) for state in {r.state for r in runs.values()}},
        "seconds_to_event": _quantiles(seen),
        "seconds_event_to_claim_when_idle": _quantiles(claimed),
        "ended_early": ended_early,
    }


def _is_as_seen(one: Any, written: dict[str, Path]) -> bool:
    """Return whether a file is still what its event was made of, so that its time is that of the event."""
    path = written[one.event.name]
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == one.event.digest


def _quantiles(values: list[float]) -> dict[str, float]:
    found = sorted(values) or [float("nan")]
    return {"median": round(statistics.median(found), 3), "most": round(found[-1], 3)}


def main() -> int:
    """Watch, print what was measured as JSON, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--every", type=float, default=20.0, help="seconds between two rounds")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hostile-folder-") as folder:
        found = measure(Path(folder), arguments.minutes, arguments.every)
        print(json.dumps(found, indent=1))
    return int(found["ended_early"] or found["lost"] > 0 or found["twice"] > 0)


if __name__ == "__main__":
    sys.exit(main())
