"""How soon `bike-pipeline watch` claims a run for what is uploaded to a bucket: S3 by moto, Google's by its emulator.

The bucket is listed each quarter of a second. An object holds no rows, so that a run ends as soon as it began. Exit
code 1 where one was not claimed, or later than a second after its upload.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.rollout.storages import STORAGES

GOAL_SECONDS = 1.0
_START_SECONDS, _SECONDS_EACH = 8.0, 6.0


def measure(kind: str, uploads: int) -> list[float]:
    """Return the seconds from the end of each upload to the claim of its run, of those that were claimed.

    Args:
        kind: of the storage, `s3` or `gcs`.
        uploads: how many objects, one after the other.
    """
    import fsspec

    from bike_pipeline.retraining.ledger import Ledger
    from bike_pipeline.retraining.ledger_tables import of_file

    patch = pytest.MonkeyPatch()
    with STORAGES[kind](patch) as address, tempfile.TemporaryDirectory(prefix="storage-claims-") as folder:
        source, workspace = f"{address}/incoming", Path(folder, "workspace")
        values = {
            "workspace": workspace,
            "retraining.triggers": "[storage]",
            "retraining.storage.sources": f"[{source}]",
            "retraining.storage.remote_seconds": 0.25,
            "retraining.policy.runs_per_day": 10_000,
            "retraining.policy.least_new_rows": 0,
        }
        assigned = [part for name, value in values.items() for part in ("--set", f"{name}={value}")]
        command = [str(Path(sys.executable).with_name("bike-pipeline")), "watch", *assigned]
        bucket, _ = fsspec.core.url_to_fs(source)
        uploaded = {}
        with (
            Path(folder, "watch.log").open("wb") as log,
            subprocess.Popen(command, stdout=log, stderr=log, env=os.environ.copy()) as process,
        ):
            time.sleep(_START_SECONDS)
            for number in range(uploads):
                name = f"{number}.csv"
                with bucket.open(f"{source}/{name}", "wb") as file:
                    file.write(f"name,age\nsomebody,{number}\n".encode())
                uploaded[name] = time.time()
                time.sleep(_SECONDS_EACH)
            process.send_signal(signal.SIGTERM)
        ledger = Ledger(of_file(workspace / "retraining" / "ledger.sqlite"))
        runs = {run.number: run for run in ledger.runs()}
        seconds = [
            runs[one.run].claimed_at - uploaded[one.event.name] for one in ledger.events() if one.run is not None
        ]
    patch.undo()
    return seconds


def main() -> int:
    """Measure both, print what was measured as JSON, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--uploads", type=int, default=10)
    uploads = parser.parse_args().uploads
    missed = False
    for kind in STORAGES:
        seconds = measure(kind, uploads)
        missed |= len(seconds) < uploads or max(seconds) > GOAL_SECONDS
        figures = {"median": round(statistics.median(seconds), 2), "most": round(max(seconds), 2)} if seconds else {}
        print(json.dumps({"storage": kind, "claimed": len(seconds), "uploads": uploads, "seconds": figures}))
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
