"""Fetch MariaDB for the tests that need a real server, without installing anything on the machine.

The packages are the distribution's own, taken with the system's package manager (signatures checked) and unpacked into
`.databases/`. It needs no rights beyond this folder. Where a server is installed already, nothing is fetched; where
there is none to be had, one line says so, and the tests of that server are skipped with the same words.
Standard library only.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import debian_packages

FOLDER = Path(__file__).resolve().parents[1] / ".databases"
PACKAGES = {"mariadb": "mariadb-server-core"}
PROGRAMS = {"mariadb": "mariadbd"}
_SYSTEM_FOLDERS = ("/usr/sbin", "/usr/libexec")


def find(server: str, folder: Path = FOLDER) -> Path | None:
    """Return the server's main program (`mariadbd`), or None where it is neither installed nor fetched.

    Args:
        server: "mariadb".
        folder: where `fetch` unpacks to.
    """
    name = PROGRAMS[server]
    on_path = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), *_SYSTEM_FOLDERS)))
    if on_path:
        return Path(on_path)
    return next(iter(sorted((folder / server).rglob(f"sbin/{name}"))), None)


def fetch(server: str, folder: Path = FOLDER) -> str:
    """Unpack a server and the libraries that it lacks on this machine into `folder`.

    Args:
        server: "mariadb".
        folder: where to.

    Returns:
        "" where it is there now, else why it is not.
    """
    reason = debian_packages.fetch([PACKAGES[server]], folder / server)
    if reason:
        return reason
    return "" if find(server, folder) else f"the package {PACKAGES[server]} holds no {PROGRAMS[server]}"


def main() -> None:
    """Fetch what is missing; never fail, since every test of a server says for itself that it is missing."""
    for server in PACKAGES:
        found = find(server)
        if found is None:
            reason = fetch(server)
            if reason:
                print(f"databases: {server}: not to be had here ({reason}); its tests are skipped", flush=True)
                continue
            found = find(server)
        print(f"databases: {server}: {found}", flush=True)


if __name__ == "__main__":
    main()
