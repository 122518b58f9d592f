"""Fetch wrk and h2load for `bike-pipeline bench-serving`, without installing anything on the machine.

Both are compiled: they take so little of a processor that the server is measured and not they. The packages are the
distribution's own, unpacked into `.load-generators/`. Where a generator is installed already, nothing is fetched; where
there is none to be had, one line says so, and `bench-serving` asks with Python.
"""

from __future__ import annotations

import sys
from pathlib import Path

import debian_packages

from benchmarks.load.generators import FOLDER, find

PACKAGES = {"wrk": "wrk", "h2load": "nghttp2-client"}


def fetch(name: str, folder: Path = FOLDER) -> str:
    """Unpack a generator and the libraries that it lacks on this machine.

    Args:
        name: "wrk" or "h2load".
        folder: where to.

    Returns:
        "" where it is there now, else why it is not.
    """
    reason = debian_packages.fetch([PACKAGES[name]], folder / name)
    return reason or ("" if find(name, folder) else f"the package {PACKAGES[name]} holds no {name} that starts")


def main() -> int:
    """Fetch what is missing; return 1 where one is not to be had."""
    missing = 0
    for name in PACKAGES:
        reason = "" if find(name) else fetch(name)
        found = find(name)
        missing += bool(reason)
        print(f"load generators: {name}: {found.program if found else f'not to be had here ({reason})'}", flush=True)
    return min(missing, 1)


if __name__ == "__main__":
    sys.exit(main())
