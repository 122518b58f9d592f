"""The compiled load generators: where they are, and how they are started.

wrk (REST, as much as there is) and h2load (REST at a rate, gRPC) are programs of their own; `make load-generators`
fetches them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import ROOT

FOLDER = ROOT / ".load-generators"
_PROBES = {"wrk": "--version", "h2load": "--version"}


@dataclass(frozen=True)
class Generator:
    """A program that starts on this machine.

    Attributes:
        name: "wrk" or "h2load".
        program: the program.
        environment: what it needs to find its libraries.
    """

    name: str
    program: Path
    environment: Mapping[str, str]


def find(name: str, folder: Path = FOLDER) -> Generator | None:
    """Return a generator that is installed or was fetched and starts; None where there is none.

    Args:
        name: "wrk" or "h2load".
        folder: where `make load-generators` unpacks to.
    """
    installed = shutil.which(name)
    unpacked = folder / name / "usr"
    places: list[tuple[Path, dict[str, str]]] = [(Path(installed), {})] if installed else []
    if (unpacked / "bin" / name).exists():
        libraries = sorted({str(path.parent) for path in unpacked.rglob("*.so*")})
        places.append((unpacked / "bin" / name, {"LD_LIBRARY_PATH": os.pathsep.join(libraries)}))
    for program, added in places:
        environment = {**os.environ, **added}
        try:
            done = subprocess.run(
                [program, _PROBES[name]], env=environment, capture_output=True, text=True, timeout=30, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        # wrk answers the question for its version with its usage and exit code 1.
        if name in done.stdout + done.stderr and "error while loading" not in done.stderr:
            return Generator(name, program, environment)
    return None
